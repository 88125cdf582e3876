"""Sentence pairs to translate: where they come from, and what is refused.

Choices: a task has three splits. Fitness is measured on `train`, models are selected on `validation`, and `test` is for
one report. A folder holds plain text, one sentence a line, `NAME.LANG` or `NAME.LANG.gz` (train.en and train.de.gz are
fine together); a .tsv or .tsv.gz file holds source, tab, target, and is split by the hash of its sources, 5 % each for
validation and test. `wmt14`, `wmt19` and their like come through `datasets`. Files with an empty side or unequal
lengths are refused; the hub's sets are real, so there empty pairs are dropped.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from data.corpus_error import CorpusError, near_matches
from data.transduction import Transduction

_EMBEDDED_TRAIN = 8000
SPLITS = ("train", "validation", "test")
NAMES = ("embedded", "wmt14", "wmt16", "wmt17", "wmt18", "wmt19")
_FILE = re.compile(r"(?P<name>.+?)\.(?P<lang>[a-z]{2,3})(\.gz)?")


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """Aligned sentences of one split.

    Attributes:
        sources, targets: equally long, none empty.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, count: int | None) -> Sentences:
        """The first `count`, all when None."""
        return Sentences(sources=self.sources[:count], targets=self.targets[:count])


@dataclass(frozen=True, kw_only=True)
class TranslationData:
    """A translation task's sentences.

    Attributes:
        name: where they come from.
        src_lang, tgt_lang: two- or three-letter codes.
        train, validation, test: the splits.
    """

    name: str
    src_lang: str
    tgt_lang: str
    train: Sentences
    validation: Sentences
    test: Sentences

    def hash(self) -> str:
        """sha256 over every sentence of every split; results on different hashes are never compared."""
        digest = hashlib.sha256(f"{self.src_lang}-{self.tgt_lang}".encode())
        for split in (self.train, self.validation, self.test):
            for side in (split.sources, split.targets):
                digest.update("\n".join(side).encode() + b"\0")
        return digest.hexdigest()


def load_translation(
    dataset: str,
    src_lang: str,
    tgt_lang: str,
    *,
    files: Sequence[str] = ("train", "val", "test"),
    max_train: int | None = None,
) -> TranslationData:
    """The sentences of a task.

    Args:
        dataset: `embedded`, a set on the hub (`wmt14` ...), a folder of parallel text, or a .tsv[.gz] file.
        src_lang, tgt_lang: the pair, such as en and de.
        files: names of the three splits in a folder.
        max_train: at most so many training pairs.

    Raises:
        CorpusError: no such set or file, the pair is not in it, an empty sentence, or unequal lengths.
    """
    if src_lang == tgt_lang:
        raise CorpusError(f"src_lang and tgt_lang are both {src_lang!r}; they must differ")
    path = Path(dataset).expanduser()
    if dataset == "embedded":
        splits = _embedded(src_lang, tgt_lang, max_train)
    elif path.is_dir():
        splits = [_from_folder(path, name, src_lang, tgt_lang) for name in files]
    elif dataset in NAMES:
        splits = _from_hub(dataset, src_lang, tgt_lang, max_train)
    elif path.name.endswith((".tsv", ".tsv.gz")):
        splits = _from_table(path)
    else:
        raise CorpusError(
            f"unknown translation set {dataset!r}{near_matches(dataset, NAMES) or ';'} allowed: {', '.join(NAMES)}, "
            "a folder of NAME.LANG[.gz] files, or a .tsv[.gz] file"
        )
    return TranslationData(
        name=path.name if path.exists() else dataset,
        src_lang=src_lang,
        tgt_lang=tgt_lang,
        train=splits[0].take(max_train),
        validation=splits[1],
        test=splits[2],
    )


def _embedded(src_lang: str, tgt_lang: str, max_train: int | None) -> list[Sentences]:
    if (src_lang, tgt_lang) != ("en", "de"):
        raise CorpusError(f"the embedded set is en-de; {src_lang}-{tgt_lang} was asked for")
    n_train = _EMBEDDED_TRAIN if max_train is None else min(max_train, _EMBEDDED_TRAIN)
    pairs = list(Transduction(seed=0, n_pairs=1500 + n_train).pairs())  # held-out first: they never depend on n_train
    return [_checked(part, "embedded") for part in (pairs[1500:], pairs[:500], pairs[500:1500])]


def _from_folder(folder: Path, name: str, src_lang: str, tgt_lang: str) -> Sentences:
    sides = []
    for lang in (src_lang, tgt_lang):
        found = [folder / f"{name}.{lang}{end}" for end in ("", ".gz") if (folder / f"{name}.{lang}{end}").is_file()]
        if not found:
            raise CorpusError(_missing(folder, name, lang))
        sides.append(list(_lines(found[0])))
    if len(sides[0]) != len(sides[1]):
        raise CorpusError(
            f"{name}.{src_lang} has {len(sides[0])} lines and {name}.{tgt_lang} {len(sides[1])} in {str(folder)!r}; "
            "parallel text needs equally many"
        )
    return _checked(zip(*sides, strict=True), f"{name} in {str(folder)!r}")


def _missing(folder: Path, name: str, lang: str) -> str:
    matches = [match for match in (_FILE.fullmatch(path.name) for path in sorted(folder.iterdir())) if match]
    names = sorted({match["name"] for match in matches})
    if name in names:
        langs = sorted({match["lang"] for match in matches if match["name"] == name})
        return f"{str(folder)!r} has no {name}.{lang}[.gz]: '{name}' is there in {', '.join(langs)}"
    hint = near_matches(name, names) or ";"
    return f"{str(folder)!r} has no {name}.{lang}[.gz]{hint} there is: {', '.join(names) or 'nothing of that form'}"


def _from_table(path: Path) -> list[Sentences]:
    if not path.is_file():
        raise CorpusError(f"{str(path)!r}: no such file")
    parts: list[list[tuple[str, str]]] = [[], [], []]
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split("\t")
        if len(fields) != 2:
            raise CorpusError(f"{str(path)!r}, line {number}: {len(fields)} fields; expected source, tab, target")
        place = int.from_bytes(hashlib.sha256(fields[0].encode()).digest()[:4], "big") % 20
        parts[place + 1 if place < 2 else 0].append((fields[0], fields[1]))
    if not all(parts):
        raise CorpusError(
            f"{str(path)!r} holds {sum(map(len, parts))} pairs and its three splits need at least one each; "
            "use more pairs, or a folder with a file a split"
        )
    return [_checked(part, str(path)) for part in parts]


def _lines(path: Path) -> Iterator[str]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for line in file:
                yield line.rstrip("\r\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise CorpusError(f"{str(path)!r} cannot be read: {error}") from None


def _checked(pairs: Iterable[tuple[str, str]], place: str) -> Sentences:
    rows = [(source.strip(), target.strip()) for source, target in pairs]
    for side, what in ((0, "source"), (1, "reference")):
        empty = [number for number, row in enumerate(rows, start=1) if not row[side]]
        if empty:
            raise CorpusError(
                f"{place}: {len(empty)} of {len(rows)} {what} sentences are empty, the first in line {empty[0]}; "
                "remove those pairs"
            )
    if not rows:
        raise CorpusError(f"{place}: no sentences")
    return Sentences(sources=tuple(row[0] for row in rows), targets=tuple(row[1] for row in rows))


def _from_hub(dataset: str, src_lang: str, tgt_lang: str, max_train: int | None) -> list[Sentences]:
    import datasets

    splits: list[Sentences] = []
    for split in SPLITS:
        limit = max_train if split == "train" else None
        rows = None
        for pair in (f"{tgt_lang}-{src_lang}", f"{src_lang}-{tgt_lang}"):
            try:
                rows = datasets.load_dataset(f"wmt/{dataset}", pair, split=split, streaming=limit is not None)
                break
            except ValueError:  # no such pair or split
                continue
            except Exception as error:  # network, names, permissions: many errors and one remedy
                raise CorpusError(
                    f"{dataset} could not be fetched ({type(error).__name__}); give local files, or "
                    "task.dataset=embedded, which needs no network"
                ) from None
        if rows is None:
            if split == "test":  # wmt19 has none: half of validation stands for it
                half = len(splits[1]) // 2
                held_out = splits.pop()
                splits += [
                    held_out.take(half),
                    Sentences(sources=held_out.sources[half:], targets=held_out.targets[half:]),
                ]
                break
            raise CorpusError(f"{dataset} has no {src_lang}-{tgt_lang} sentences in its split '{split}'")
        pairs = ((row["translation"][src_lang], row["translation"][tgt_lang]) for row in rows)
        splits.append(_checked(islice((p for p in pairs if p[0].strip() and p[1].strip()), limit), dataset))
    return splits

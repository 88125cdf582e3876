"""Mathematics problems with a numeric answer: GSM8K, MGSM in eleven languages, and splits that cannot overlap.

MGSM is GSM8K's first 250 test problems translated, so a model evolved on the one and reported on the
other is scored on what it was chosen by. Every problem therefore carries the hash of its *English*
question, in whatever language it is asked, and splits that share one are refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.corpus_error import CorpusError, near_matches
from data.keyed_random import numpy_generator

MGSM_LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
MGSM_SIZE = 250
SPLIT_NAMES = ("evolve", "promote", "report")


class OverlapError(CorpusError):
    """Two splits share problems; the message says which and how many."""


@dataclass(frozen=True, kw_only=True)
class MathProblem:
    """One problem.

    Attributes:
        question: as it is asked.
        answer: the gold number as the data set writes it.
        solution: worked out, ending in `#### answer`; empty where the set has none.
        language: two letters.
        item: hash of the English question; equal for translations.
        source: such as `gsm8k:test:0`.
        skill: what it asks for, where the set says so.
    """

    question: str
    answer: str
    item: str
    source: str
    solution: str = ""
    language: str = "en"
    skill: str = ""


def item_hash(english_question: str) -> str:
    """Which problem a question is: sha256 of its letters and digits, in lower case."""
    kept = re.sub(r"\W", "", english_question).casefold()
    return hashlib.sha256(kept.encode()).hexdigest()


def load_gsm8k(split: str, folder: Path | None = None) -> list[MathProblem]:
    """GSM8K, in its own order.

    Args:
        split: `train` (7,473 problems) or `test` (1,319).
        folder: with train.jsonl and test.jsonl; None: through `datasets`.

    Raises:
        CorpusError: no such split or file, a malformed row, or the download fails.
    """
    if split not in ("train", "test"):
        raise CorpusError(
            f"gsm8k has no split {split!r}{near_matches(split, ('train', 'test')) or ';'} allowed: train, test"
        )
    rows = _download("openai/gsm8k", "main", split) if folder is None else _jsonl(folder / f"{split}.jsonl")
    problems = []
    for number, row in enumerate(rows):
        question, solution = row.get("question"), row.get("answer")
        if not isinstance(question, str) or not isinstance(solution, str) or "####" not in solution:
            raise CorpusError(
                f"gsm8k {split} row {number}: expected a question and an answer with '####', got {row!r:.120}"
            )
        problems.append(
            MathProblem(
                question=question,
                answer=solution.rpartition("####")[2].strip(),
                solution=solution,
                item=item_hash(question),
                source=f"gsm8k:{split}:{number}",
            )
        )
    return problems


def load_mgsm(language: str, folder: Path | None = None) -> list[MathProblem]:
    """The 250 problems of MGSM in one language, in their own order.

    Args:
        language: one of MGSM_LANGUAGES.
        folder: with mgsm_<language>.tsv, and mgsm_en.tsv, which tells which problem each is; None: through `datasets`.

    Raises:
        CorpusError: no such language or file, a malformed row, or the download fails.
    """
    if language not in MGSM_LANGUAGES:
        raise CorpusError(
            f"mgsm has no language {language!r}{near_matches(language, MGSM_LANGUAGES) or ';'} "
            f"allowed: {', '.join(MGSM_LANGUAGES)}"
        )
    rows = _mgsm_rows(language, folder)
    english = rows if language == "en" else _mgsm_rows("en", folder)
    if len(rows) != len(english):
        raise CorpusError(f"mgsm {language} has {len(rows)} rows and English {len(english)}; they must be translations")
    return [
        MathProblem(
            question=question,
            answer=answer,
            item=item_hash(original),
            source=f"mgsm:{language}:{number}",
            language=language,
        )
        for number, ((question, answer), (original, _)) in enumerate(zip(rows, english, strict=True))
    ]


def _mgsm_rows(language: str, folder: Path | None) -> list[tuple[str, str]]:
    if folder is None:
        rows = _download("juletxara/mgsm", language, "test")
        return [(str(row["question"]), str(row["answer_number"])) for row in rows]
    path = folder / f"mgsm_{language}.tsv"
    pairs = []
    for number, line in enumerate(_text(path).splitlines()):
        question, tab, answer = line.rpartition("\t")
        if not tab:
            raise CorpusError(f"{path} row {number}: expected question, tab, answer; got {line!r:.80}")
        pairs.append((question, answer.strip()))
    return pairs


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from None


def _jsonl(path: Path) -> list[dict[str, object]]:
    rows = []
    for number, line in enumerate(_text(path).split("\n")):
        if line.strip():
            try:
                rows.append(dict(json.loads(line)))
            except (ValueError, TypeError):
                raise CorpusError(f"{path} row {number}: not a JSON object: {line[:80]!r}") from None
    return rows


def _download(name: str, configuration: str, split: str) -> Iterable[dict[str, object]]:
    try:
        from datasets import load_dataset

        return [dict(row) for row in load_dataset(name, configuration, split=split)]
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CorpusError(
            f"{name} ({configuration}, {split}) cannot be loaded: {reason}; or give a folder of files"
        ) from None


@dataclass(frozen=True, kw_only=True)
class ProblemSplits:
    """Problems to search with, to choose with, and to report on.

    Attributes:
        evolve: fitness in the search.
        promote: decides between the finalists.
        report: looked at once, at the end.

    Raises:
        OverlapError: two of them share a problem, in whatever language.
        CorpusError: one of them is empty.
    """

    evolve: Sequence[MathProblem]
    promote: Sequence[MathProblem]
    report: Sequence[MathProblem]

    def __post_init__(self) -> None:
        """Raises: see the class."""
        check_disjoint({name: getattr(self, name) for name in SPLIT_NAMES})


def check_disjoint(splits: Mapping[str, Sequence[MathProblem]]) -> None:
    """Refuse splits that share a problem.

    Raises:
        OverlapError: they do; the message says how many and shows one of each side.
        CorpusError: a split is empty.
    """
    seen: dict[str, tuple[str, MathProblem]] = {}
    for name, problems in splits.items():
        if not problems:
            raise CorpusError(f"the {name} split holds no problems; it needs at least one")
        shared = [problem for problem in problems if seen.get(problem.item, (name,))[0] != name]
        if shared:
            other, twin = seen[shared[0].item]
            raise OverlapError(
                f"the splits {other} and {name} share {len(shared)} problems: {twin.source} is {shared[0].source}; "
                "MGSM is GSM8K's test rows 0 to 249, so evolve on GSM8K train or on test rows from 250 on"
            )
        for problem in problems:
            seen.setdefault(problem.item, (name, problem))


def named_problems(name: str, folder: Path | None = None) -> list[MathProblem]:
    """Problems by a name such as `gsm8k:train`, `gsm8k:test[250:]` or `mgsm:ja`.

    Args:
        name: data set, split or language, and optionally rows as Python writes a slice.
        folder: with sub-folders gsm8k and mgsm; None: through `datasets`.

    Raises:
        CorpusError: a name that does not read so.
    """
    match = re.fullmatch(r"(\w+):(\w+)(?:\[(\d*):(\d*)\])?", name)
    if match is None or match[1] not in ("gsm8k", "mgsm"):
        raise CorpusError(
            f"unknown problems {name!r}; allowed: gsm8k:train, gsm8k:test, mgsm:<language>, with [from:to] rows"
        )
    below = None if folder is None else folder / match[1]
    load = load_gsm8k if match[1] == "gsm8k" else load_mgsm
    problems = load(match[2], below)
    return problems[int(match[3]) if match[3] else None : int(match[4]) if match[4] else None]


def held_out(problems: Sequence[MathProblem], share: float, seed: int) -> tuple[list[MathProblem], list[MathProblem]]:
    """Split problems at random, keyed by `seed`, into (kept, held out) with `share` of them held out."""
    order = numpy_generator("problems", seed).permutation(len(problems))
    count = round(share * len(problems))
    chosen = set(order[:count].tolist())
    kept = [problem for number, problem in enumerate(problems) if number not in chosen]
    return kept, [problem for number, problem in enumerate(problems) if number in chosen]


def limited(problems: Sequence[MathProblem], most: int | None, seed: int) -> list[MathProblem]:
    """At most `most` of the problems, drawn at random, keyed by `seed`, in their own order."""
    if most is None or len(problems) <= most:
        return list(problems)
    order = sorted(numpy_generator("limited problems", seed).permutation(len(problems))[:most].tolist())
    return [problems[number] for number in order]

"""A corpus: tokenised text in three splits, in a folder whose checksums are verified before use.

Choices: a folder holds one packed token file per split (uint16 where ids fit, else uint32), the
tokenizer and `meta.json` with the sha256 of each; readers map the files, so ten workers share one copy in
memory. The corpus hash covers the texts, the split rule, the tokenizer, the vocabulary size and the token files;
results are comparable only within one hash. Built once and cached by content: see `corpus_builder.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from data.corpus_error import CorpusError, near_matches
from data.splits import SPLITS, Split
from data.tokenizer import END_OF_DOCUMENT_ID, tokenizer_at

__all__ = ["SPLITS", "Corpus", "CorpusConfig", "CorpusError", "Split", "load_corpus", "open_corpus"]

FORMAT = 1
Progress = Callable[[str, int, int | None], None]
META_FILE = "meta.json"
TOKENIZER_FILE = "tokenizer.json"


class CorpusConfig(BaseModel):
    """What the corpus is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = "stdlib"
    """`stdlib`, `stories`, `tinystories`, or the path of a .txt, .jsonl or .parquet file."""
    vocab_size: int = 512
    """Size V of the BPE vocabulary, 257 to 262,144."""
    max_bytes: int | None = None
    """Use the first whole documents of the source that fit in this many bytes; all when None."""
    text_field: str = "text"
    """The field of a .jsonl or the column of a .parquet file that holds the text."""
    seed: int = 0
    """Seed of the generator; `stories` only."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A verified corpus folder; cheap to make and to send to another process.

    Attributes:
        directory: the folder.
        name: of the source.
        hash: sha256 over texts, split rule, tokenizer, vocabulary size and token files.
        tokenizer_hash: sha256 over what the tokenizer does.
        vocab_size: V, as configured; every id is below it.
        entropy_floor: the least expected loss in nats per token where it is known (`stories`), else None.
        meta: everything in `meta.json`: sizes, documents, checksums.
    """

    directory: Path
    name: str
    hash: str
    tokenizer_hash: str
    vocab_size: int
    entropy_floor: float | None
    meta: dict[str, Any] = field(repr=False, compare=False)

    @property
    def end_of_document(self) -> int:
        """The id after every document."""
        return END_OF_DOCUMENT_ID

    def n_tokens(self, split: str) -> int:
        """Tokens in `split`; raises CorpusError for an unknown split."""
        return int(self._split(split)["tokens"])

    def tokens(self, split: str) -> np.memmap[Any, np.dtype[Any]]:
        """The token ids of `split`, (N,) uint16 or uint32, mapped read-only.

        Raises:
            CorpusError: there is no such split, or its file is gone.
        """
        entry = self._split(split)
        path = self.directory / entry["file"]
        try:
            return np.memmap(path, dtype=np.dtype(self.meta["dtype"]), mode="r")
        except (OSError, ValueError) as error:
            raise CorpusError(
                f"the token file {str(path)!r} cannot be read ({error}); build the corpus again"
            ) from error

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without an end-of-document token."""
        return tokenizer_at(self.directory / TOKENIZER_FILE, self.tokenizer_hash).encode(text)

    def decode(self, ids: Sequence[int] | npt.NDArray[Any]) -> str:
        """The text of `ids`; the end-of-document token reads `<|endoftext|>`."""
        return tokenizer_at(self.directory / TOKENIZER_FILE, self.tokenizer_hash).decode(ids)

    def _split(self, split: str) -> dict[str, Any]:
        if split not in SPLITS:
            raise CorpusError(
                f"unknown split {split!r}{near_matches(split, SPLITS) or ';'} allowed: {', '.join(SPLITS)}"
            )
        entry: dict[str, Any] = self.meta["splits"][split]
        return entry


def load_corpus(
    config: CorpusConfig, cache_dir: Path | str | None = None, *, progress: Progress | None = None
) -> Corpus:
    """The corpus that `config` describes: from the cache, or built into it (about 7 s for the default on an idle core).

    Args:
        config: what it is made of.
        cache_dir: where built corpora are kept; $EVOSCALE_CACHE or ~/.cache/evoscale when None.
        progress: called as progress(stage, done_bytes, total_bytes or None) while building.

    Raises:
        CorpusError: the source, a file in it or a setting is not usable; one sentence says which and what is allowed.
    """
    from data.corpus_builder import find_or_build

    return find_or_build(config, default_cache_dir() if cache_dir is None else Path(cache_dir), progress)


def open_corpus(directory: Path | str) -> Corpus:
    """The corpus in `directory`, after checking it; never builds or writes.

    Sizes are compared on every call, sha256 once per process and file (8 ms for the default corpus).

    Raises:
        CorpusError: the folder is not a whole corpus, or a file in it was cut or changed.
    """
    directory = Path(directory).absolute()
    meta = _read_meta(directory)
    for entry in [meta["tokenizer"], *meta["splits"].values()]:
        _check_file(directory / entry["file"], entry)
    if corpus_hash(meta) != meta["hash"]:
        raise CorpusError(
            f"the file {str(directory / META_FILE)!r} was changed; delete its folder and build the corpus again"
        )
    return Corpus(
        directory=directory,
        name=meta["name"],
        hash=meta["hash"],
        tokenizer_hash=meta["tokenizer"]["hash"],
        vocab_size=meta["vocab_size"],
        entropy_floor=meta["entropy_floor"],
        meta=meta,
    )


def default_cache_dir() -> Path:
    """$EVOSCALE_CACHE, or ~/.cache/evoscale where it is not set."""
    configured = os.environ.get("EVOSCALE_CACHE")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "evoscale"


def corpus_hash(meta: dict[str, Any]) -> str:
    """sha256 over what makes two corpora the same: texts, split rule, tokenizer, vocabulary size, token files."""
    content = {
        "texts": meta["texts_sha256"],
        "split_rule": meta["split_rule"],
        "tokenizer": meta["tokenizer"]["hash"],
        "vocab_size": meta["vocab_size"],
        "entropy_floor": meta["entropy_floor"],
        "tokens": {split: meta["splits"][split]["sha256"] for split in SPLITS},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def _read_meta(directory: Path) -> dict[str, Any]:
    path = directory / META_FILE
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        if meta["format"] != FORMAT:
            raise CorpusError(
                f"the corpus {str(directory)!r} has format {meta['format']!r}; this version reads {FORMAT}"
            )
        corpus_hash(meta)  # every field that is read later is there
        _ = [
            (entry["file"], entry["bytes"], entry["sha256"]) for entry in [meta["tokenizer"], *meta["splits"].values()]
        ]
        _ = (meta["name"], meta["hash"], meta["dtype"])
    except FileNotFoundError as error:
        raise CorpusError(f"{str(directory)!r} is not a corpus folder: it has no {META_FILE}") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise CorpusError(
            f"the file {str(path)!r} is broken ({error!r}); delete its folder and build the corpus again"
        ) from error
    return dict(meta)


def _check_file(path: Path, entry: dict[str, Any]) -> None:
    again = "delete its folder and build the corpus again"
    try:
        status = path.stat()
    except OSError as error:
        raise CorpusError(f"the corpus file {str(path)!r} is missing ({error.strerror}); {again}") from error
    if status.st_size != entry["bytes"]:
        raise CorpusError(
            f"the corpus file {str(path)!r} holds {status.st_size:,} bytes and must hold {entry['bytes']:,}; {again}"
        )
    if _sha256_once(str(path), status.st_size, status.st_mtime_ns, status.st_ino) != entry["sha256"]:
        raise CorpusError(
            f"the corpus file {str(path)!r} was changed: its sha256 is not the one in {META_FILE}; {again}"
        )


@lru_cache(maxsize=1024)
def _sha256_once(path: str, size: int, mtime_ns: int, inode: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

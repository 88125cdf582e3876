"""Builds a corpus folder once and keeps it in the cache.

Choices: the text is read once into a scratch file, so every later pass sees the same bytes
even where the source is a stream. Everything is written in a `.building-*` folder beside the others, flushed to
disk and renamed at the end: a kill or a full disk leaves at most that folder, which a later build
removes after a day, and of two processes building at once the second to finish keeps the first one's result.
A cached folder that fails its checks is built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import re
import shutil
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from data.corpus import FORMAT, META_FILE, TOKENIZER_FILE, Corpus, CorpusConfig, Progress, corpus_hash, open_corpus
from data.corpus_error import CorpusError
from data.sources import Source, source_of
from data.splits import SPLIT_RULE, SPLITS, assign_splits
from data.tokenizer import (
    TRAINING_SAMPLE_BYTES,
    BytePairTokenizer,
    check_vocab_size,
    token_dtype,
    tokenizer_threads,
    train_tokenizer,
)

MIN_SPLIT_TOKENS = 65
_SCRATCH_FILE = "texts.scratch"
_BATCH_BYTES = 2**20
_ABANDONED_SECONDS = 24 * 3600.0


def find_or_build(config: CorpusConfig, cache_dir: Path, progress: Progress | None) -> Corpus:
    """The corpus that `config` describes, from `cache_dir` or built into it; see `load_corpus`."""
    check_vocab_size(config.vocab_size)
    if config.max_bytes is not None and config.max_bytes < 1:
        raise CorpusError(f"max_bytes is {config.max_bytes}; allowed: 1 or more, or none for all of the text")
    source = source_of(config.source, text_field=config.text_field, seed=config.seed, max_bytes=config.max_bytes)
    fingerprint = source.fingerprint()
    corpora = cache_dir.expanduser().absolute() / "corpora"
    final = corpora / _folder_name(source.name, fingerprint, config)
    damaged = False
    if final.exists():
        try:
            return open_corpus(final)
        except CorpusError:
            damaged = True
    try:
        corpora.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(corpora)
        if damaged:
            _set_aside(final, corpora)
        building = Path(mkdtemp(prefix=".building-", dir=corpora))
        building.chmod(0o755)  # mkdtemp makes it private; workers may run as another user
        try:
            _build(source, fingerprint, config, building, progress or _silent)
            _publish(building, final)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        raise CorpusError(
            f"the corpus cache {str(corpora)!r} cannot be written ({error.strerror or error}); "
            "free some space there, or set EVOSCALE_CACHE to another folder"
        ) from error
    return open_corpus(final)


@dataclass
class _Texts:
    """The documents in the scratch file: where each ends, its digest, and all of them hashed."""

    path: Path
    ends: array[int] = field(default_factory=lambda: array("q"))
    digests: list[bytes] = field(default_factory=list)
    sha256: str = ""

    @property
    def total_bytes(self) -> int:
        return self.ends[-1] if self.ends else 0

    def sizes(self) -> list[int]:
        return np.diff(np.frombuffer(self.ends, dtype=np.int64), prepend=0).tolist() if self.ends else []

    def read(self, chosen: list[int]) -> Iterator[str]:
        """The documents with the indices `chosen`, in that order."""
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            for index in chosen:
                yield text[self.ends[index - 1] if index else 0 : self.ends[index]].decode("utf-8")


def _build(source: Source, fingerprint: str, config: CorpusConfig, folder: Path, progress: Progress) -> None:
    texts = _gather(source, config.max_bytes, folder / _SCRATCH_FILE, progress)
    if source.fingerprint() != fingerprint:
        raise CorpusError(
            f"the source {config.source!r} changed while it was read; try again when nothing writes to it"
        )
    split_of = assign_splits(texts.digests, texts.sizes())
    with tokenizer_threads(texts.total_bytes):
        sample = _training_sample(texts, split_of)
        progress("tokenizer", 0, texts.total_bytes)
        tokenizer = train_tokenizer(texts.read(sample), vocab_size=config.vocab_size)
        _write(folder / TOKENIZER_FILE, tokenizer.to_json.encode("utf-8"))
        splits = _encode(texts, split_of, tokenizer, token_dtype(config.vocab_size), folder, progress)
    for split, entry in splits.items():
        if entry["tokens"] < MIN_SPLIT_TOKENS:
            raise CorpusError(
                f"the corpus {source.name!r} is too small: its {texts.total_bytes:,} bytes leave {entry['tokens']} "
                f"tokens for {split} and each split needs at least {MIN_SPLIT_TOKENS}; use a larger text"
            )
    meta: dict[str, Any] = {
        "format": FORMAT,
        "name": source.name,
        "source": {"fingerprint": fingerprint, "max_bytes": config.max_bytes},
        "texts_sha256": texts.sha256,
        "text_bytes": texts.total_bytes,
        "documents": len(texts.digests),
        "split_rule": SPLIT_RULE,
        "vocab_size": config.vocab_size,
        "entropy_floor": source.entropy_floor(lambda text: len(tokenizer.encode(text))),
        "dtype": token_dtype(config.vocab_size).str,
        "tokenizer": {**_file_entry(folder / TOKENIZER_FILE), "hash": tokenizer.hash, "tokens": tokenizer.n_tokens},
        "splits": splits,
    }
    meta["hash"] = corpus_hash(meta)
    (folder / _SCRATCH_FILE).unlink()
    _write(folder / META_FILE, (json.dumps(meta, indent=1, sort_keys=True) + "\n").encode("utf-8"))


def _gather(source: Source, max_bytes: int | None, path: Path, progress: Progress) -> _Texts:
    """Writes the source's documents to `path`, one after another."""
    texts = _Texts(path)
    everything = hashlib.sha256()
    total = shown = 0
    with path.open("wb") as file:
        for document in source.documents():
            content = document.encode("utf-8", errors="replace")  # a lone surrogate (possible in JSON) becomes "?"
            if not content.strip():
                continue
            if max_bytes is not None and total + len(content) > max_bytes:
                break
            total += len(content)
            file.write(content)
            texts.ends.append(total)
            texts.digests.append(hashlib.sha256(content).digest())
            everything.update(len(content).to_bytes(8, "big") + content)
            if total - shown >= _BATCH_BYTES:
                shown = total
                progress("read", total, max_bytes)
    if not texts.digests:
        limit = "" if max_bytes is None else f" that fits in max_bytes {max_bytes:,}"
        raise CorpusError(f"the corpus {source.name!r} holds no document{limit}; it needs text")
    progress("read", total, total)
    texts.sha256 = everything.hexdigest()
    return texts


def _training_sample(texts: _Texts, split_of: list[int]) -> list[int]:
    """Which train documents the tokenizer learns from: all, or the first by hash up to TRAINING_SAMPLE_BYTES."""
    sizes = texts.sizes()
    train = [index for index, split in enumerate(split_of) if split == SPLITS.index("train")]
    if sum(sizes[index] for index in train) <= TRAINING_SAMPLE_BYTES:
        return train
    sample, total = [], 0
    for index in sorted(train, key=lambda index: (texts.digests[index], index)):
        total += sizes[index]
        if total > TRAINING_SAMPLE_BYTES:
            break
        sample.append(index)
    return sorted(sample)


def _encode(
    texts: _Texts,
    split_of: list[int],
    tokenizer: BytePairTokenizer,
    dtype: np.dtype[Any],
    folder: Path,
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Writes one token file per split, in document order; the entries of `meta.json`."""
    sizes = texts.sizes()
    done = 0
    entries: dict[str, dict[str, Any]] = {}
    for number, split in enumerate(SPLITS):
        chosen = [index for index, of in enumerate(split_of) if of == number]
        path = folder / f"{split}.tokens"
        n_tokens = 0
        with path.open("wb") as file:
            for batch in _batches(texts.read(chosen)):
                progress("encode", done, texts.total_bytes)
                for ids in tokenizer.encode_documents(batch):
                    file.write(np.asarray(ids, dtype=dtype).tobytes())
                    n_tokens += len(ids)
                done += sum(len(text.encode("utf-8")) for text in batch)
            _flush(file.fileno(), file)
        text_bytes = sum(sizes[index] for index in chosen)
        entries[split] = {**_file_entry(path), "tokens": n_tokens, "documents": len(chosen), "text_bytes": text_bytes}
    progress("encode", done, texts.total_bytes)
    return entries


def _batches(documents: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _publish(building: Path, final: Path) -> None:
    """Renames the finished folder into place; where another process was faster, its folder stays."""
    try:
        building.rename(final)
    except OSError:
        if not (final / META_FILE).exists():
            raise
        return
    descriptor = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _set_aside(final: Path, corpora: Path) -> None:
    """Moves a damaged folder away under a name that is never opened, then removes it."""
    aside = Path(mkdtemp(prefix=".building-", dir=corpora))
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        final.rename(aside / "damaged")
    shutil.rmtree(aside, ignore_errors=True)


def _remove_abandoned(corpora: Path) -> None:
    for folder in corpora.glob(".building-*"):
        try:
            if time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            continue


def _folder_name(name: str, fingerprint: str, config: CorpusConfig) -> str:
    key = {
        "format": FORMAT,
        "source": fingerprint,
        "vocab_size": config.vocab_size,
        "max_bytes": config.max_bytes,
        "split_rule": SPLIT_RULE,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode("utf-8")).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:40]
    return f"{readable}-v{config.vocab_size}-{digest[:20]}"


def _file_entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": digest}


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        _flush(file.fileno(), file)


def _flush(descriptor: int, file: Any) -> None:
    file.flush()
    os.fsync(descriptor)


def _silent(stage: str, done: int, total: int | None) -> None:
    return None

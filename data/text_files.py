"""Local .txt, .jsonl and .parquet files as documents, read as a stream.

Choices: memory stays bounded by one block of text however large the file is. A .txt file that
holds `<|endoftext|>` is split there, any other at blank lines. A document longer than
`PIECE_CHARACTERS` is cut at a line end into pieces that count as documents of their own: splits then stay
even, and a piece is hundreds of context windows long.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data.corpus_error import CorpusError, near_matches
from data.tokenizer import END_OF_DOCUMENT

PIECE_CHARACTERS = 65_536
_BLOCK_BYTES = 2**20
_BLANK_LINES = re.compile(r"\n[ \t]*\n")
_MARKER = re.compile(re.escape(END_OF_DOCUMENT))


def pieces(text: str) -> Iterator[str]:
    """`text` in pieces of at most PIECE_CHARACTERS, cut after a line end where there is one, else after a space."""
    while len(text) > PIECE_CHARACTERS:
        at = _cut(text)
        yield text[:at]
        text = text[at:]
    if text.strip():
        yield text


def read_documents(path: Path, text_field: str) -> Iterator[str]:
    """The documents of a .txt, .jsonl or .parquet file, in order.

    Args:
        path: the file.
        text_field: the field (jsonl) or column (parquet) that holds the text; ignored for .txt.

    Raises:
        CorpusError: the file is missing, empty, not text, broken, of another kind, or lacks the field.
    """
    check_file(path)
    for text in READERS[path.suffix.lower()](path, text_field):
        yield from pieces(text)


def check_file(path: Path) -> None:
    """Refuses at once what cannot be read as a corpus.

    Raises:
        CorpusError: the path is missing, a folder, empty, unreadable or has an extension that is not read.
    """
    kinds = ", ".join(READERS)
    if path.is_dir():
        raise CorpusError(f"the corpus {str(path)!r} is a folder; give one file of a kind that is read: {kinds}")
    if path.suffix.lower() not in READERS:
        kind = f"the extension {path.suffix!r}" if path.suffix else "no extension"
        raise CorpusError(f"the corpus {str(path)!r} has {kind}; allowed: {kinds}")
    if not path.exists():
        siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = (
            near_matches(path.name, siblings)
            if siblings
            else f"; the folder {str(path.parent)!r} does not exist either"
        )
        raise CorpusError(f"the corpus file {str(path)!r} does not exist{hint}")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise CorpusError(f"the corpus file {str(path)!r} is empty; it needs text")
    except OSError as error:
        raise CorpusError(f"the corpus file {str(path)!r} cannot be read ({error.strerror})") from error


def file_digest(path: Path, kind: str) -> str:
    """sha256 over `kind` and the bytes of the file at `path`; raises CorpusError where it cannot be read."""
    digest = hashlib.sha256(f"{kind}\n".encode())
    for block, _ in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _text_documents(path: Path, text_field: str) -> Iterator[str]:
    separator = _MARKER if _holds(path, END_OF_DOCUMENT.encode()) else _BLANK_LINES
    waiting = ""
    for block in _text_blocks(path):
        *whole, waiting = separator.split(waiting + block)
        yield from (document.strip("\n") for document in whole)
        while len(waiting) > PIECE_CHARACTERS + len(END_OF_DOCUMENT):
            at = _cut(waiting)
            yield waiting[:at]
            waiting = waiting[at:]
    yield waiting.strip("\n")


def _jsonl_documents(path: Path, text_field: str) -> Iterator[str]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"line {number} of {str(path)!r}"
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise CorpusError(f"{where} is not JSON ({error}); every line must be one JSON object") from error
        if not isinstance(record, dict):
            raise CorpusError(f"{where} is a JSON {type(record).__name__}; every line must be one JSON object")
        if text_field not in record:
            raise CorpusError(
                f"{where} has no field {text_field!r}; fields there: {_listed(record)}; set text_field to one of them"
            )
        if not isinstance(record[text_field], str):
            raise CorpusError(f"the field {text_field!r} in {where} is {record[text_field]!r:.40}; it must be a string")
        yield record[text_field]


def _parquet_documents(path: Path, text_field: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            if text_field not in schema.names:
                raise CorpusError(
                    f"the parquet file {str(path)!r} has no column {text_field!r}; "
                    f"columns there: {_listed(schema.names)}; set text_field to one of them"
                )
            kind = schema.field(text_field).type
            if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
                raise CorpusError(f"the column {text_field!r} of {str(path)!r} holds {kind}; it must hold strings")
            for batch in file.iter_batches(batch_size=1024, columns=[text_field]):
                yield from (text for text in batch.column(0).to_pylist() if text is not None)
    except (pyarrow.ArrowException, OSError) as error:
        raise CorpusError(f"the corpus file {str(path)!r} is not a readable parquet file ({error})") from error


READERS: dict[str, Callable[[Path, str], Iterator[str]]] = {
    ".txt": _text_documents,
    ".jsonl": _jsonl_documents,
    ".parquet": _parquet_documents,
}


def _text_blocks(path: Path) -> Iterator[str]:
    """The file's text in blocks, with Unix line ends, refusing what is not text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    position = 0
    held = ""  # a carriage return at a block's end may belong to a line feed in the next
    first = True
    for block, last in _blocks(path):
        if b"\0" in block:
            raise CorpusError(
                f"the corpus file {str(path)!r} is not text: "
                f"it holds a NUL byte at position {position + block.index(0):,}; allowed: UTF-8 text"
            )
        pending = len(decoder.getstate()[0])
        try:
            text = held + decoder.decode(block, final=last)
        except UnicodeDecodeError as error:
            at = position - pending + error.start
            raise CorpusError(
                f"the corpus file {str(path)!r} is not UTF-8: byte 0x{error.object[error.start]:02x} "
                f"at position {at:,}; convert it, for example with iconv -t UTF-8"
            ) from error
        if first:
            text, first = text.removeprefix("\ufeff"), False
        held = "\r" if text.endswith("\r") and not last else ""
        yield text.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n")
        position += len(block)


def _lines(path: Path) -> Iterator[str]:
    waiting = ""
    for block in _text_blocks(path):
        *whole, waiting = (waiting + block).split("\n")
        yield from whole
    if waiting:
        yield waiting


def _blocks(path: Path) -> Iterator[tuple[bytes, bool]]:
    try:
        with path.open("rb") as file:
            block = file.read(_BLOCK_BYTES)
            while block:
                following = file.read(_BLOCK_BYTES)
                yield block, not following
                block = following
    except OSError as error:
        raise CorpusError(f"the corpus file {str(path)!r} cannot be read ({error.strerror})") from error


def _holds(path: Path, marker: bytes) -> bool:
    tail = b""
    for block, _ in _blocks(path):
        if marker in tail + block:
            return True
        tail = (tail + block)[-len(marker) :]
    return False


def _cut(text: str) -> int:
    at = text.rfind("\n", 0, PIECE_CHARACTERS) + 1
    return at or text.rfind(" ", 0, PIECE_CHARACTERS) + 1 or PIECE_CHARACTERS


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names) or "none"

"""Where the text of a corpus comes from: name to source.

Choices: every source is an ordered stream of documents with a cheap fingerprint of its content, so
a cached corpus is found without reading the text again. `stdlib`, the Python library's own source text, is the
default because every machine has it: real text that needs no download and is the same for the same
Python build (732 files and 12.08 MB on Python 3.11.7).
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from data.corpus_error import CorpusError, near_matches
from data.text_files import READERS, check_file, file_digest, pieces, read_documents

SOURCES = ("stdlib", "stories", "tinystories")
_NOT_LIBRARY = frozenset({"test", "tests", "idle_test", "__pycache__", "site-packages", "dist-packages"})
_NOT_PORTABLE = frozenset({"sitecustomize.py", "usercustomize.py"})


class Source(Protocol):
    """An ordered stream of documents.

    Attributes:
        name: short, for people and folder names.
    """

    name: str

    def fingerprint(self) -> str:
        """A hex digest that changes when the documents do; cheap beside reading them."""
        ...

    def documents(self) -> Iterator[str]:
        """The documents in their fixed order; each call starts anew."""
        ...

    def entropy_floor(self, n_tokens: Callable[[str], int]) -> float | None:
        """The least expected loss in nats per token, if it is known.

        Args:
            n_tokens: how many tokens a piece of text takes.
        """
        ...


def source_of(name: str, *, text_field: str, seed: int, max_bytes: int | None) -> Source:
    """The source called `name`: one of SOURCES, or the path of a .txt, .jsonl or .parquet file.

    Args:
        name: as in the configuration.
        text_field: field or column of the text, for .jsonl and .parquet.
        seed: of the generator, for `stories`.
        max_bytes: how much text will be used; the generator stops there.

    Raises:
        CorpusError: there is no such source or file; the message lists near matches and what is allowed.
    """
    if name == "stdlib":
        return StandardLibrary()
    if name == "stories":
        from data.stories import DEFAULT_BYTES, Stories

        return Stories(seed=seed, n_bytes=DEFAULT_BYTES if max_bytes is None else max_bytes)
    if name == "tinystories":
        from data.tinystories import TinyStories

        return TinyStories()
    path = Path(name).expanduser()
    if path.suffix or len(path.parts) > 1 or path.exists():
        return TextFile(path, text_field)
    raise CorpusError(
        f"unknown corpus source {name!r}{near_matches(name, SOURCES) or ';'} "
        f"allowed: {', '.join(SOURCES)}, or the path of a {', '.join(READERS)} file"
    )


class StandardLibrary:
    """The running Python's own library text: its .py files in order of their relative path, without tests."""

    def __init__(self, root: Path | None = None) -> None:
        """From the folder `root`, the running Python's library when None.

        Raises:
            CorpusError: the folder holds no .py files (an embedded or zipped Python).
        """
        self.name = "stdlib"
        self._root = root or Path(sysconfig.get_path("stdlib"))
        self.files = _library_files(self._root)
        if not self.files:
            raise CorpusError(
                f"the Python library at {str(self._root)!r} holds no .py files; "
                "allowed instead: the source stories, or the path of a text file"
            )

    def fingerprint(self) -> str:
        """sha256 over every file's relative path and bytes."""
        digest = hashlib.sha256(b"stdlib 1")
        for file in self.files:
            digest.update(file_digest(self._root / file, file).encode())
        return digest.hexdigest()

    def documents(self) -> Iterator[str]:
        """One document a file; long files in pieces."""
        for file in self.files:
            yield from pieces(_python_text(self._root / file))

    def entropy_floor(self, n_tokens: Callable[[str], int]) -> float | None:
        """Unknown for real text."""
        return None


class TextFile:
    """A local .txt, .jsonl or .parquet file."""

    def __init__(self, path: Path, text_field: str) -> None:
        """From the file at `path`; raises CorpusError as `check_file` does."""
        check_file(path)
        self.name = path.stem
        self._path = path
        self._text_field = text_field

    def fingerprint(self) -> str:
        """sha256 of the file's bytes and of how it is read."""
        return file_digest(self._path, f"file 1 {self._path.suffix.lower()} {self._text_field}")

    def documents(self) -> Iterator[str]:
        """As `read_documents` gives them."""
        return read_documents(self._path, self._text_field)

    def entropy_floor(self, n_tokens: Callable[[str], int]) -> float | None:
        """Unknown for real text."""
        return None


def _library_files(root: Path) -> list[str]:
    found: list[str] = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in _NOT_LIBRARY and not name.startswith("config-")]
        found += [
            Path(folder, name).relative_to(root).as_posix()
            for name in files
            if name.endswith(".py") and not name.startswith("_sysconfigdata") and name not in _NOT_PORTABLE
        ]
    return sorted(found)


def _python_text(path: Path) -> str:
    try:
        with tokenize.open(path) as file:  # honours the file's own encoding line
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise CorpusError(
            f"the library file {str(path)!r} cannot be read ({error}); Python {sys.version_info[:3]}"
        ) from error

"""What a hostile block could reach if it were not confined, and whether any did."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

SECRET = "sk-planted-by-the-bench"
"""A key that no worker and no file of a run may ever hold."""


class Trap:
    """A listening socket, a file that must not appear, inputs that must stay, a key that must not be seen.

    Args:
        folder: existing folder of the bench.
        corpus: folder of the corpus that runs read.
        mark: argument that hostile blocks give to programs they start.
    """

    def __init__(self, folder: Path, corpus: Path, mark: str) -> None:
        self._outside = folder / "written-outside"
        self._corpus = corpus
        self._mark = mark
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)

    def __enter__(self) -> Trap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    @property
    def fill(self) -> dict[str, str]:
        """What stands for each @NAME@ of a poison."""
        return {
            "CORPUS": str(self._corpus),
            "OUTSIDE": str(self._outside),
            "PORT": str(self._listener.getsockname()[1]),
            "TERCES": SECRET[::-1],  # backwards, so that the block itself does not hold it
            "MARK": self._mark,
        }

    def damage(self) -> list[str]:
        """What a hostile block reached, in words."""
        from data.corpus import CorpusError, open_corpus

        found = []
        if self._outside.exists():
            found.append("a file outside the scratch folder was written")
        try:
            self._listener.accept()[0].close()
            found.append("a connection left the sandbox")
        except BlockingIOError:
            pass
        try:
            open_corpus(self._corpus)
        except (CorpusError, OSError) as error:
            found.append(f"the corpus is damaged ({error})")
        return found


@contextmanager
def planted_key() -> Iterator[None]:
    """The secret as this process's endpoint key, for as long as the block lasts."""
    before = os.environ.get("OPENAI_API_KEY")
    os.environ["OPENAI_API_KEY"] = SECRET
    try:
        yield
    finally:
        if before is None:
            del os.environ["OPENAI_API_KEY"]
        else:
            os.environ["OPENAI_API_KEY"] = before

"""The one interface of everything that runs specs."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from training.outcome import Outcome
from training.run_spec import RunSpec


class Executor(Protocol):
    """Runs specs somewhere. Idempotent by key: the same spec submitted twice runs once."""

    def submit(self, spec: RunSpec, source: str | None = None) -> Future[Outcome]:
        """Have `spec` measured; `source` is the candidate's program, None the framework's own class."""
        ...

    def close(self) -> None:
        """Drop what has not begun, wait for the rest."""
        ...

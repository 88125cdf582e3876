"""The progress bar over a command's runs: done of all, time left, a few words; nothing where there is no terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


class RunBar:
    """A bar on a terminal. Elsewhere `advance` answers False, and the caller prints lines of its own.

    Args:
        console: where it is drawn; lines printed there stay above it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def start(self, total: int) -> None:
        """Show the bar for `total` runs."""
        if self._console.quiet or not sys.stdout.isatty():
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("runs"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[status]}"),
            console=self._console,
            transient=True,
        )
        self._progress.start()
        self._task = self._progress.add_task("runs", total=total, status="")

    def advance(self, status: str) -> bool:
        """Count one run and show `status`; False where there is no bar."""
        if self._progress is None or self._task is None:
            return False
        self._progress.update(self._task, advance=1, status=status)
        return True

    def stop(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

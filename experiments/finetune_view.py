"""What `evoscale finetune` shows while it runs: a bar with fitness, rate and time left, and a line a validation."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any


class FinetuneView:
    """A listener of `Finetuning`; a context manager, so that the bar always ends.

    Args:
        quiet: show nothing.
        n_epochs: length of the bar.
    """

    def __init__(self, *, quiet: bool, n_epochs: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._quiet = quiet
        self._n_epochs = n_epochs
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[status]}"),
            transient=True,
            disable=quiet or not sys.stdout.isatty(),
        )
        self._task: Any = None

    def __enter__(self) -> FinetuneView:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start_progress(self, done: int, total: int, loss: float) -> None:
        """Progress of the start model's gradient training."""
        self._show(f"start model: {total} gradient steps, cached after", done, total, f"loss {loss:.3f}", done == total)

    def listen(self, event: str, payload: Mapping[str, Any]) -> None:
        """Show an event of a fine-tuning."""
        if event == "validation":
            self._print(f"start     validation {_scores(payload['validation'])}")
        elif event == "resumed":
            self._print(f"resumed   {payload['epochs']} epochs replayed, best so far: epoch {payload['best_epoch']}")
        elif event == "epoch":
            self._epoch(payload)

    def _epoch(self, entry: Mapping[str, Any]) -> None:
        status = f"fitness {entry['fitness']:.4f}, step {entry['step']:.2f} sigma"
        self._show("epochs", entry["epoch"], self._n_epochs, status, False)
        if "validation" in entry:
            mark = "  best" if entry["best_epoch"] == entry["epoch"] else ""
            self._print(
                f"{entry['epoch']:>5}     validation {_scores(entry['validation'])}   fitness {entry['fitness']:.4f}, "
                f"flat groups {entry['flat_groups']:.0%}, {entry['cpu_seconds']:.0f} CPU s{mark}"
            )
        if "example" in entry:
            example = entry["example"]
            self._print(
                f"          {example['source']}\n       => {example['translation']}\n       == {example['reference']}"
            )

    def _show(self, title: str, done: int, total: int, status: str, last: bool) -> None:
        if self._task is None:
            self._task = self._bar.add_task(title, total=total, status=status)
        self._bar.update(self._task, completed=done, total=total, status=status, description=title)
        if last:
            self._print(f"{title}: {status}")
            self._bar.remove_task(self._task)
            self._task = None

    def _print(self, text: str) -> None:
        if not self._quiet:
            from rich.text import Text

            self._bar.console.print(Text(text))


def _scores(score: Mapping[str, float]) -> str:
    return f"chrF {score['chrf']:.2f}  BLEU {score['bleu']:.2f}  length ratio {score['length_ratio']:.2f}"

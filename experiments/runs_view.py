"""What a person sees while many runs go on: one bar over all of them, or a line now and then without a terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from experiments.run_bar import RunBar

_SECONDS_BETWEEN_LINES = 15.0


class RunsView:
    """Shows the runs of a tuning or a validation; a context manager, and `listen` is the listener.

    Args:
        total: runs there will be at most.
        quiet: show nothing (for `--json`).
    """

    def __init__(self, total: int, quiet: bool = False) -> None:
        from rich.console import Console

        self._console = Console(quiet=quiet, highlight=False, soft_wrap=True)
        self._total = total
        self._done = 0
        self._new = 0
        self._loss = ""
        self._began = time.monotonic()
        self._last_line = self._began
        self._lock = threading.Lock()
        self._bar = RunBar(self._console)

    def __enter__(self) -> RunsView:
        self._bar.start(self._total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def listen(self, event: str, payload: Mapping[str, Any]) -> None:
        """Show one event; called from any thread."""
        handler = getattr(self, f"_on_{event}", None)
        if handler is not None:
            with self._lock:
                handler(payload)

    def say(self, text: str) -> None:
        """One line above the bar."""
        from rich.text import Text

        self._console.print(Text(text))

    def _on_building(self, payload: Mapping[str, Any]) -> None:
        self.say(f"corpus    building {payload['source']}, once: {payload['stage']}")

    def _on_precision(self, payload: Mapping[str, Any]) -> None:
        self.say(f"precision {payload['precision']} ({payload['reason']})")

    def _on_sandbox(self, payload: Mapping[str, Any]) -> None:
        self.say(f"sandbox   {payload['reason'] if payload['confined'] else 'NONE, by your choice'}")

    def _on_arm(self, payload: Mapping[str, Any]) -> None:
        who = "the reference" if payload["reference"] else f"candidate {payload['candidate'][:12]}"
        self.say(f"tunes     {who}: {payload['trials']} trials")

    def _on_trial(self, payload: Mapping[str, Any]) -> None:
        trial = payload["trial"]
        settings = trial.settings
        loss = f"{sum(trial.losses) / len(trial.losses):.4f}" if trial.losses else "no loss"
        self.say(
            f"  trial {trial.number:>3} {trial.state:<8} {loss}  rate x{settings.learning_rate_factor:.2f}, "
            f"warm-up {settings.warmup_fraction:.3f}, decay {settings.weight_decay:g}, batch x{settings.batch_factor:g}"
            f"{'  ' + trial.reason.splitlines()[0][:80] if trial.reason else ''}"
        )

    def _on_confirmation(self, payload: Mapping[str, Any]) -> None:
        plan = payload["plan"]
        how = "tuned settings" if payload["tuned"] else "the ladder's settings (evoscale tune has not been run)"
        self.say(
            f"validates reference and {plan['shortlist'][0][:12]} on seeds {plan['seeds'][0]}-{plan['seeds'][-1]} at "
            f"{', '.join(plan['sizes'])}, test split, {how}"
        )

    def _on_outcome(self, payload: Mapping[str, Any]) -> None:
        outcome, spec = payload["outcome"], payload["spec"]
        self._done += 1
        self._new += not payload["recorded"]
        ended = f"loss {outcome.val_loss:.4f}" if outcome.status == "completed" else outcome.status
        self._loss = f"{spec.size} seed {spec.seed}: {ended}"
        if not self._bar.advance(self._loss) and time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            left = (self._total - self._done) * (self._last_line - self._began) / max(1, self._new)
            self.say(f"  {self._done} of {self._total} runs done, {self._loss}, about {left / 60:.0f} minutes left")

"""What a person sees while a run goes on: which run this is, then a line a candidate and a bar.

A projection of the run's events, like the report. On a terminal the bar shows the best
gain so far, runs done, runs a minute and the time left; elsewhere plain lines appear.
Nothing here changes a run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from experiments.run_bar import RunBar

if TYPE_CHECKING:
    from evolution.budget import Spent
    from evolution.result import Result
    from evolution.session import Request


class LiveView:
    """Shows a run's events; a context manager, and `listen` is the listener.

    Args:
        quiet: show nothing (for `--json`).
    """

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console

        self._console = Console(stderr=False, quiet=quiet, highlight=False, soft_wrap=True)
        self._bar = RunBar(self._console)
        self._lock = threading.Lock()
        self._best: float | None = None
        self._last_loss: float | None = None
        self._iterations = 0
        self._done = 0
        self._from_ledger = 0
        self._started = time.monotonic()
        self._last_line = 0.0
        self.report: Path | None = None
        self.differences: list[str] = []
        self._spent: Spent | None = None

    def __enter__(self) -> LiveView:
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

    def finish(self, result: Result) -> None:
        """The verdict in words, and last the report's path."""
        self._bar.stop()
        from rich.text import Text

        out = self._console
        out.print()
        if not result.verdicts:
            out.print(Text(result.sentence, style="bold"))
        for verdict in result.verdicts:
            colour = {"promoted": "green", "undecided": "yellow"}.get(str(verdict["decision"]), "red")
            line = Text(f"{str(verdict['decision']).upper()}  ", style=f"bold {colour}")
            line.append(f"{str(verdict['candidate'])[:12]}  ", style="dim")
            line.append(str(verdict["sentence"]), style="default")
            out.print(line)
        minutes = (time.monotonic() - self._started) / 60
        out.print(f"{result.n_candidates} candidates measured; this command took {minutes:.1f} minutes")
        if self.report is not None:
            out.print(f"report: {self.report}")

    # One method an event.

    def _on_finished_before(self, payload: Mapping[str, Any]) -> None:
        self.report = Path(payload["directory"]) / "report.html"
        self._console.print(
            f"run '{payload['name']}' is complete; its verdict is shown again "
            "(give another --name or --seed for a new run)"
        )

    def _on_building(self, payload: Mapping[str, Any]) -> None:
        self._console.print(f"corpus    building {payload['source']}, once: {payload['stage']}")

    def _on_started(self, payload: Mapping[str, Any]) -> None:
        manifest, request = payload["manifest"], payload["request"]
        config = request.config
        sizes = ", ".join(size.name for size in request.ladder.all_sizes)
        out = self._console
        state = "goes on from its ledger" if payload["resumed"] else "starts"
        out.print(f"run       {manifest['name']} {state} in {payload['directory']} (seed {config.seed})")
        out.print(f"evolves   {request.framework.name}: {request.framework.summary}")
        out.print(f"proposer  {request.proposer}")
        corpus = manifest["corpus"]
        out.print(f"corpus    {corpus['name']}, vocabulary {corpus['vocab_size']}, sha256 {corpus['hash'][:12]}")
        stages = "; ".join(
            f"{stage.size} x {stage.seeds} seeds for {'all' if stage.keep is None else f'the best {stage.keep}'}"
            for stage in request.stages
        )
        out.print(f"search    {config.iterations} iterations on ladder {request.ladder.name} ({sizes}): {stages}")
        confirmation = config.confirmation
        out.print(
            f"confirms  up to {confirmation.shortlist} on {confirmation.seeds} fresh paired seeds at "
            f"{', '.join(request.confirmation_sizes)}, test split; promoted at p < {confirmation.alpha:g} and "
            f"at least {confirmation.least_effect:g} nats"
        )
        self._bar.start(_expected_runs(request))
        self._iterations = config.iterations

    def _on_precision(self, payload: Mapping[str, Any]) -> None:
        self._console.print(f"precision {payload['precision']} ({payload['reason']})")

    def _on_sandbox(self, payload: Mapping[str, Any]) -> None:
        how = payload["reason"] if payload["confined"] else f"NONE, by your choice ({payload['reason']})"
        self._console.print(f"sandbox   {how}")

    def _on_outcome(self, payload: Mapping[str, Any]) -> None:
        outcome = payload["outcome"]
        self._done += 1
        self._from_ledger += bool(payload["recorded"])
        if outcome.status == "completed":
            self._last_loss = outcome.val_loss
        if not self._bar.advance(self._status()) and not payload["recorded"]:
            now = time.monotonic()
            if now - self._last_line > 20:
                self._last_line = now
                self._console.print(f"  {self._done} runs done, {self._status()}")

    def _on_measured(self, payload: Mapping[str, Any]) -> None:
        gain = payload["paired_gain"]
        changes = str(payload.get("changes") or "")
        if payload["iteration"] == 0 and gain == 0:
            self._console.print("  reference measured")
            return
        where = "" if payload["stage"] == "in_loop" else f" at {str(payload['stage']).partition(':')[2]}"
        head = f"  {payload['iteration']:>3}/{self._iterations}  {payload['candidate'][:12]}"
        if gain is None:
            self._print_plain(f"{head}  failed{where}: {str(payload['failure']).splitlines()[0][:110]}")
            return
        self._best = gain if self._best is None else max(self._best, gain)
        self._print_plain(f"{head}  gain {gain:+.4f} nats{where}  {changes[:80]}")

    def _on_no_candidate(self, payload: Mapping[str, Any]) -> None:
        self._print_plain(f"  {payload['iteration']:>3}/{self._iterations}  no usable proposal (reasons in the ledger)")

    def _on_rejected(self, payload: Mapping[str, Any]) -> None:
        self._print_plain(f"  rejected {payload['candidate'][:12]}: {payload['reason'][:140]}")

    def _on_stopped_early(self, payload: Mapping[str, Any]) -> None:
        self._print_plain(f"  stopped {payload['candidate'][:12]}: {payload['reason'][:140]}")

    def _on_stage(self, payload: Mapping[str, Any]) -> None:
        self._print_plain(f"stage     the best {len(payload['candidates'])} at {payload['size']}")

    def _on_confirmation(self, payload: Mapping[str, Any]) -> None:
        plan = payload["plan"]
        self._print_plain(
            f"confirm   plan declared, seal opened: {len(plan['shortlist'])} candidates, "
            f"seeds {plan['seeds'][0]}-{plan['seeds'][-1]}, {', '.join(plan['sizes'])}"
        )

    def _on_reply(self, payload: Mapping[str, Any]) -> None:
        self._spent = payload["spent"]

    def _on_budget(self, payload: Mapping[str, Any]) -> None:
        self._print_plain(f"budget    {payload['reason']}")

    def _on_control_arm(self, payload: Mapping[str, Any]) -> None:
        self._print_plain(f"control   {payload['arm'].replace('_', ' ')}: up to {payload['candidates']} candidates")

    def _on_replayed(self, payload: Mapping[str, Any]) -> None:
        self.differences = list(payload["differences"])
        if not self.differences:
            self._print_plain(f"replay    the same candidates, losses and verdict as {payload['run']}")
        for difference in self.differences:
            self._print_plain(f"replay    DIFFERS: {difference}")

    def _on_report(self, payload: Mapping[str, Any]) -> None:
        self.report = Path(payload["path"])

    # The bar.

    def _print_plain(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(text))

    def _status(self) -> str:
        best = "none yet" if self._best is None else f"{self._best:+.4f}"
        loss = "" if self._last_loss is None else f", last loss {self._last_loss:.3f}"
        return f"best gain {best}{loss}{_cost(self._spent)}"


def _cost(spent: Spent | None) -> str:
    """Tokens and dollars so far, as far as they were reported."""
    if spent is None or not (spent.tokens or spent.dollars or spent.unreported):
        return ""
    missing = f" ({spent.unreported} calls reported none)" if spent.unreported else ""
    dollars = f", ${spent.dollars:.4f}" if spent.dollars else ""
    unpriced = ", no price known" if spent.unpriced else ""
    return f", {spent.tokens:,} LLM tokens{missing}{dollars}{unpriced}"


def _expected_runs(request: Request) -> int:
    """Runs of the whole evolution if every iteration yields a candidate."""
    config = request.config
    total = 0
    for stage in request.stages:
        entrants = config.iterations if stage.keep is None else min(stage.keep, config.iterations)
        total += stage.seeds * (entrants + 1)
    confirmation = config.confirmation
    arms = min(confirmation.shortlist, config.iterations) + 1
    return total + arms * confirmation.seeds * len(request.confirmation_sizes)

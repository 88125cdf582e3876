"""Orchestration: what an iteration costs beside training, guarding in a worker, and the LLM, against plain OpenEvolve.

Both sides evolve the same start program with the same replies. Ours writes every step to a real ledger; runs complete
at once and the dynamic guards, which bench `sandbox` has, are left out. The stand-ins for LLM and training are counted:
microseconds in our loop, an HTTP request to a loopback server in OpenEvolve's.
"""

from __future__ import annotations

import itertools
import logging
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.benches.faulty_endpoint import MODEL, FaultyEndpoint
from experiments.benches.row import Row, Targets
from experiments.benches.toy_evolution import FRAMEWORK, toy_config, toy_corpus

if TYPE_CHECKING:
    from evolution.proposers.client import Answer
    from experiments.benches.registry import Options
    from training.outcome import Outcome
    from training.run_spec import RunSpec

EARLY, LATE, QUICK_LATE = 50, 1000, 70
PLAIN, QUICK_PLAIN = 120, 12
WINDOW = 20
"""Iterations either side of the one named, over which the median is taken."""


def measure(options: Options, targets: Targets) -> Iterator[Row]:
    """CPU milliseconds an iteration, early and late, and OpenEvolve's own beside them."""
    late = QUICK_LATE if options.quick else LATE
    with tempfile.TemporaryDirectory(prefix="evoscale-orchestration-") as folder:
        ours = _ours(Path(folder), late + 1)
        plain = _plain(Path(folder), QUICK_PLAIN if options.quick else PLAIN)
    early_ms = 1e3 * statistics.median(ours[EARLY - WINDOW : EARLY + WINDOW])
    late_ms = 1e3 * statistics.median(ours[late - 2 * WINDOW : late])
    yield targets.row(f"an iteration at iteration {EARLY}", early_ms, "ms CPU")
    yield targets.row("an iteration at the last against that", late_ms / early_ms, "times")
    yield targets.row("the last iteration" if late >= LATE else "the last iteration of a small part", late, "")
    plain_ms = None if plain is None else 1e3 * plain
    yield targets.row("an iteration of plain OpenEvolve, with its workers", plain_ms, "ms CPU")


class _Replies:
    """An LLM that costs nothing: a new harmless line in the parent's output on every call."""

    def __init__(self) -> None:
        from frameworks.registry import framework

        self._found = framework(FRAMEWORK)
        self._place = 0

    def reply(self) -> str:
        """The next reply: the framework's own block with another constant in it."""
        self._place += 1
        line = f"y = y * (1.0 + {self._place} * 1e-9)"
        block = self._found.start_block.replace("return y\n", f"{line}\n        return y\n")
        return f"Scale {self._place}.\n\n```python\n{block}```\n"

    def ask(
        self, system: str, user: str, seed: int, *, grammar: str | None = None, timeout: float | None = None
    ) -> Answer:
        """The next reply as an answer."""
        from evolution.proposers.client import Answer

        return Answer(text=self.reply(), error=None, prompt_tokens=1, completion_tokens=1, seconds=0.0)


def _ours(folder: Path, iterations: int) -> list[float]:
    """CPU seconds of each iteration of our loop."""
    from evolution.engine import Evolution
    from evolution.guarding import Guarding
    from evolution.ledger import Ledger
    from evolution.measurement import Measurement
    from evolution.proposers.roster import Roster
    from evolution.session import check_request, manifest_of
    from evolution.stages import RunFactory
    from training.outcome import Completed

    rng = random.Random(0)

    class Instant(Measurement):
        """Runs that complete at once with a made-up loss, committed like any other."""

        def __init__(self, ledger: Ledger) -> None:
            self._ledger = ledger

        def submit(self, spec: RunSpec, source: str) -> Future[Outcome]:
            outcome = Completed.model_validate(_COMPLETED | {"val_loss": 5.0 + rng.gauss(0.0, 0.01)})
            self._ledger.commit_run(spec.key, spec.model_dump(mode="json"), outcome.model_dump(mode="json"))
            future: Future[Outcome] = Future()
            future.set_result(outcome)
            return future

    class StaticOnly(Guarding):
        """The static guards and the record of their reports."""

        def __init__(self, ledger: Ledger, framework: Any) -> None:
            self._ledger, self._framework = ledger, framework

        def _check(self, program: Any) -> tuple[list[dict[str, Any]], str | None]:
            from evolution.guards.registry import static_guards

            reports = [report.to_json() for report in static_guards(self._framework, program.block)]
            return reports, None if reports[-1]["passed"] else str(reports[-1]["reason"])

    config = toy_config(iterations=iterations)
    request = check_request(config)
    corpus = toy_corpus()
    marks: list[float] = []
    with Ledger.open(folder / "ledger.sqlite", create=True) as ledger:
        ledger.record("run_started", manifest_of(request, corpus, None))
        evolution = Evolution(
            config=config,
            framework=request.framework,
            stages=request.stages,
            confirmation_sizes=request.confirmation_sizes,
            factory=RunFactory(config, request.ladder, corpus, "fp32", "cpu"),
            ledger=ledger,
            measurement=Instant(ledger),
            guarding=StaticOnly(ledger, request.framework),
            roster=Roster.single(_Replies(), "stand-in"),
            listener=lambda event, payload: marks.append(time.process_time()) if event == "accepted" else None,
        )
        evolution.run()
    return [after - before for before, after in itertools.pairwise(marks)]


_COMPLETED: dict[str, Any] = {
    "curve": [(100, 5.2, 5.1), (200, 5.0, 5.0)],
    "n_parameters": 6000,
    "tokens": 100_000,
    "flops": 10**9,
    "cpu_seconds": 1.0,
    "seconds": 1.0,
    "peak_memory_bytes": 10**8,
}


def _plain(folder: Path, iterations: int) -> float | None:
    """CPU seconds an iteration of OpenEvolve's own controller, children included, start-up taken off.

    None where it did not keep a program an iteration, and so did not do the work.
    """
    start, whole = _plain_run(folder / "start", 1), _plain_run(folder / "plain", 1 + iterations)
    return None if start is None or whole is None else max(0.0, whole - start) / iterations


def _plain_run(folder: Path, iterations: int) -> float | None:
    import asyncio
    import os

    from openevolve.config import Config, LLMModelConfig
    from openevolve.controller import OpenEvolve

    from frameworks.registry import framework

    folder.mkdir()
    replies = _Replies()
    program, evaluator = folder / "program.py", folder / "evaluator.py"
    program.write_text(framework(FRAMEWORK).pristine, encoding="utf-8")
    evaluator.write_text("def evaluate(path):\n    return {'combined_score': 1.0}\n", encoding="utf-8")
    logging.disable(logging.CRITICAL)
    began = os.times()
    try:
        config = Config(max_iterations=iterations, diff_based_evolution=False, checkpoint_interval=10**6)
        config.evaluator.cascade_evaluation = False
        config.evaluator.parallel_evaluations = 1
        with FaultyEndpoint([replies.reply() for _ in range(2 * iterations)]) as endpoint:
            served = {"api_base": endpoint.base_url, "api_key": "none", "timeout": 60, "retries": 0, "retry_delay": 0}
            config.llm.models = [LLMModelConfig(name=MODEL, temperature=0.7, max_tokens=4096, **served)]
            config.llm.evaluator_models = config.llm.models
            controller = OpenEvolve(str(program), str(evaluator), config=config, output_dir=str(folder / "out"))
            asyncio.run(controller.run(iterations))
    finally:
        logging.disable(logging.NOTSET)
    ended = os.times()
    if len(controller.database.programs) < 1 + iterations:
        return None
    return sum(ended[:4]) - sum(began[:4])

"""Runs RunSpecs: the ledger first, then sandboxed workers.

A spec whose key the ledger holds is answered from it. Otherwise a worker trains it and
the outcome is committed before anyone acts on it, so a run that was paid for is never
paid for twice. What a worker does, up to taking the machine's memory, becomes a typed
outcome here; nothing a worker does raises.
"""

from __future__ import annotations

import shutil
import signal
import statistics
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolution.config import LimitsSection

if TYPE_CHECKING:
    from data.corpus import Corpus
    from evolution.ledger import Ledger
    from evolution.sandbox import Sandbox, WorkerResult
    from training.outcome import Outcome
    from training.run_spec import RunSpec

GIBIBYTE = 1024**3
CHECKPOINTED_TOKENS = 1_000_000
"""Runs of at least this many training tokens keep checkpoints."""
MEASURE_TARGET = "evolution.measured_run:measure"


class MeasurementError(RuntimeError):
    """The harness itself could not measure; says nothing about a candidate."""


class Measurement:
    """Measures candidates.

    Args:
        ledger: where outcomes are committed and looked up.
        sandbox: where candidates run.
        corpus: the tokens, readable in the sandbox.
        directory: scratch for checkpoints of unfinished runs.
        workers: worker processes; changes the speed, never a result.
        limits: what one worker may use.
        reference: identity of the reference; it is ours, so an error in its run is the harness's.
        on_outcome: called with (spec, outcome, from_ledger) after each run, in any thread.
        keep: the folder where every checkpoint and the curve of a run stay; None, or None from it, keeps none.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        sandbox: Sandbox,
        corpus: Corpus,
        directory: Path,
        workers: int,
        limits: LimitsSection,
        reference: str,
        on_outcome: Callable[[RunSpec, Outcome, bool], None] | None = None,
        keep: Callable[[RunSpec], Path | None] | None = None,
    ) -> None:
        from training.executors.local import LocalExecutor

        self._ledger = ledger
        self._sandbox = sandbox
        self._corpus = corpus
        self._directory = directory
        self._limits = limits
        self._reference = reference
        self._on_outcome = on_outcome
        self._keep = keep or (lambda spec: None)
        self._seconds: dict[tuple[str, int], list[float]] = defaultdict(list)
        self._lock = threading.Lock()
        self._closing = False
        self._executor = LocalExecutor(workers, self._measure)

    def submit(self, spec: RunSpec, source: str) -> Future[Outcome]:
        """Measure `spec` with the program `source`; the same key is never trained twice."""
        from training.outcome import outcome_from_json

        stored = self._ledger.outcome(spec.key)
        if stored is None:
            return self._executor.submit(spec, source)
        outcome = outcome_from_json(stored)
        self._note_seconds(spec, outcome)
        if self._on_outcome is not None:
            self._on_outcome(spec, outcome, True)
        future: Future[Outcome] = Future()
        future.set_result(outcome)
        return future

    def gather(self, work: Iterable[tuple[RunSpec, str]]) -> dict[str, Outcome]:
        """Measure many, dearest first so that no long run starts last; outcomes by key."""
        from training.executors.local import longest_first

        futures = {self.submit(spec, source): spec.key for spec, source in longest_first(work)}
        return {futures[future]: future.result() for future in as_completed(futures)}

    def close(self) -> None:
        """Drop what has not started and kill what runs; neither says anything about a candidate."""
        self._closing = True
        self._sandbox.cancel_all()
        self._executor.close()

    def _measure(self, spec: RunSpec, source: str | None) -> Outcome:
        if self._closing:
            raise CancelledError
        kept = self._keep(spec)
        if kept is not None:
            kept.mkdir(parents=True, exist_ok=True)
        scratch = kept or self._scratch(spec)
        result = self._call(spec, source, scratch, keep=kept is not None)
        if _was_killed_from_outside(result) and not self._closing:
            result = self._call(spec, source, scratch, keep=kept is not None)
        self._refuse_our_own_fault(result, spec)
        outcome = outcome_of(result)
        if self._closing and outcome.status != "completed":
            raise CancelledError
        self._ledger.commit_run(spec.key, spec.model_dump(mode="json"), outcome.model_dump(mode="json"))
        if scratch is not None and kept is None:
            shutil.rmtree(scratch, ignore_errors=True)
        self._note_seconds(spec, outcome)
        if self._on_outcome is not None:
            self._on_outcome(spec, outcome, False)
        return outcome

    def _call(self, spec: RunSpec, source: str | None, scratch: Path | None, *, keep: bool) -> WorkerResult:
        return self._sandbox.call(
            MEASURE_TARGET,
            {
                "spec": spec.model_dump(mode="json"),
                "source": source,
                "corpus_dir": str(self._corpus.directory),
                "checkpoint_dir": None if scratch is None else str(scratch),
                "keep_every_checkpoint": keep,
                "device_index": self._device_index(spec),
            },
            limits=self._worker_limits(spec),
            readable=[self._corpus.directory],
            scratch=scratch,
        )

    def _refuse_our_own_fault(self, result: WorkerResult, spec: RunSpec) -> None:
        """Raise where the harness failed and not the candidate, so that it is not held against the candidate.

        A candidate shares the worker's process and could make any error look like ours, so its word
        is not taken: the sandbox's own report counts, a failing reference counts, and the corpus is looked at.
        """
        from data.corpus import CorpusError, open_corpus
        from evolution.sandbox import Raised

        if not isinstance(result, Raised) or result.error == "InvalidResult":
            return
        ours = result.error == "SandboxError" or spec.candidate == self._reference
        reason = f"{result.error}: {(result.detail.strip().splitlines() or [''])[-1]}"
        if not ours:
            try:
                open_corpus(self._corpus.directory)
            except (CorpusError, OSError) as error:
                ours, reason = True, str(error)
        if ours:
            raise MeasurementError(
                f"the run at size {spec.size}, seed {spec.seed} could not be measured ({reason}); "
                "nothing of it was recorded, and the same command goes on once this is mended"
            )

    def _scratch(self, spec: RunSpec) -> Path | None:
        """Where a run keeps checkpoints; a short run has none, it is cheaper to train again."""
        if spec.tokens < CHECKPOINTED_TOKENS:
            return None
        scratch = self._directory / spec.key[:24]
        scratch.mkdir(parents=True, exist_ok=True)
        return scratch

    def _device_index(self, spec: RunSpec) -> int | None:
        """The GPU of this worker: one process a GPU, and more only where there are more workers than GPUs."""
        if spec.device_kind != "cuda":
            return None
        import torch

        from training.executors.local import worker_slot

        return worker_slot() % max(1, torch.cuda.device_count())

    def _note_seconds(self, spec: RunSpec, outcome: Outcome) -> None:
        if outcome.status == "completed":
            with self._lock:
                self._seconds[spec.size, spec.steps].append(outcome.seconds)

    def _worker_limits(self, spec: RunSpec) -> Any:
        from evolution.sandbox import Limits

        seconds = self._limits.run_seconds
        if seconds is None:
            with self._lock:
                known = self._seconds.get((spec.size, spec.steps))
                # Until the reference has run there is nothing to compare with: a day.
                seconds = max(60.0, 20.0 * statistics.median(known)) if known else 86_400.0
        return Limits(seconds=seconds, memory_bytes=int(self._limits.memory_gb * GIBIBYTE))


def _was_killed_from_outside(result: WorkerResult) -> bool:
    """Died of SIGKILL, and no limit of the sandbox was the reason: the kernel's or a person's doing, or its own.

    Such a run is measured once more, for most likely the candidate is innocent; if it dies again, it is not.
    """
    from evolution.sandbox import Killed
    from evolution.sandbox.result import KEEPER_KILLED

    return isinstance(result, Killed) and result.signal == signal.SIGKILL and result.reason in ("", KEEPER_KILLED)


def outcome_of(result: WorkerResult) -> Outcome:
    """The typed outcome of whatever a worker did."""
    from evolution import sandbox
    from training import outcome as kinds

    if isinstance(result, sandbox.Returned):
        try:
            return kinds.outcome_from_json(result.value)
        except ValueError as error:
            return kinds.Crashed(error="InvalidResult", detail=f"the worker returned no outcome: {error}")
    if isinstance(result, sandbox.Raised):
        return kinds.Crashed(error=result.error, detail=result.detail)
    if isinstance(result, sandbox.Exited):
        return kinds.Crashed(error="Exited", detail=f"the worker left with exit status {result.code} and no result")
    if isinstance(result, sandbox.Killed):
        return kinds.Crashed(error="Killed", detail=f"the worker was {result}")
    if isinstance(result, sandbox.TimedOut):
        return kinds.TimedOut(limit_seconds=result.limit_seconds)
    return kinds.OutOfMemory(limit_bytes=result.limit_bytes)

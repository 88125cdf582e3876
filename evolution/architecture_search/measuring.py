"""Measures stretches of architectures: the ledger first, then a sandboxed worker that continues the checkpoint.

The ledger is the journal. A stretch whose key it holds is answered from it and never trained again, so a search that
was killed replays its decisions and goes on where it stood.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolution.measurement import GIBIBYTE, MeasurementError, outcome_of

if TYPE_CHECKING:
    from data.corpus import Corpus
    from evolution.architecture_search.settings import SearchSettings
    from evolution.ledger import Ledger
    from evolution.sandbox import Sandbox
    from frameworks.architecture.schema import Architecture
    from training.architecture_spec import StretchSpec
    from training.outcome import Outcome

TARGET = "training.architecture_trainer:measure"


class StretchMeasurement:
    """Trains stretches.

    Args:
        ledger: where outcomes are committed and looked up.
        sandbox: where they are trained.
        corpus: the tokens.
        directory: checkpoints, one folder for each trajectory.
        settings: lengths, limits and the device.
        on_outcome: called with (name, spec, outcome, from_ledger) after each, in any thread.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        sandbox: Sandbox,
        corpus: Corpus,
        directory: Path,
        settings: SearchSettings,
        on_outcome: Callable[[str, StretchSpec, Outcome, bool], None] | None = None,
    ) -> None:
        import os

        self.ledger, self.settings, self.corpus = ledger, settings, corpus
        self._sandbox, self._directory, self._on_outcome = sandbox, directory, on_outcome
        self._lock = threading.Lock()
        self._closing = False
        self._pool = ThreadPoolExecutor(settings.workers or len(os.sched_getaffinity(0)))

    def spec(
        self,
        architecture: Architecture,
        *,
        stop_at: int,
        horizon: int,
        seed: int | None = None,
        deep: bool = False,
    ) -> StretchSpec:
        """The spec of a stretch in this search; `deep` takes the deep lengths where they are set."""
        from training.architecture_spec import stretch_spec

        settings = self.settings
        return stretch_spec(
            architecture,
            stop_at=stop_at,
            horizon=horizon,
            seed=settings.seed if seed is None else seed,
            vocab_size=self.corpus.vocab_size,
            corpus_hash=self.corpus.hash,
            tokenizer_hash=self.corpus.tokenizer_hash,
            seq_len=(settings.deep_seq_len if deep else None) or settings.seq_len,
            batch_size=(settings.deep_batch_size if deep else None) or settings.batch_size,
            eval_tokens=settings.eval_tokens,
            device_kind="cuda" if settings.device == "cuda" else "cpu",
        )

    def submit(self, architecture: Architecture, spec: StretchSpec) -> Future[Outcome]:
        """The outcome of `spec`; the same key is never trained twice."""
        return self._pool.submit(self._measure, architecture, spec)

    def close(self) -> None:
        """Drop what has not begun and kill what runs."""
        self._closing = True
        self._sandbox.cancel_all()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _measure(self, architecture: Architecture, spec: StretchSpec) -> Outcome:
        from training.architecture_trainer import trained_from_json

        with self._lock:
            stored = self.ledger.outcome(spec.key)
        if stored is not None:
            outcome = trained_from_json(stored)
            self._tell(architecture, spec, outcome, True)
            return outcome
        outcome = self._train(architecture, spec)
        with self._lock:
            if self._closing:
                raise MeasurementError("the search was stopped; the same command goes on from there")
            self.ledger.commit_run(spec.key, spec.model_dump(mode="json"), outcome.model_dump(mode="json"))
        self._tell(architecture, spec, outcome, False)
        return outcome

    def _train(self, architecture: Architecture, spec: StretchSpec) -> Outcome:
        from evolution.sandbox import Limits, Raised, Returned
        from frameworks.architecture.document import tree_of
        from training.architecture_trainer import trained_from_json

        scratch = self._directory / spec.trajectory[:24]
        scratch.mkdir(parents=True, exist_ok=True)
        arguments: dict[str, Any] = {
            "spec": spec.model_dump(mode="json"),
            "architecture": tree_of(architecture),
            "corpus_dir": str(self.corpus.directory),
            "checkpoint_dir": str(scratch),
        }
        limits = Limits(seconds=self.settings.run_seconds, memory_bytes=int(self.settings.memory_gb * GIBIBYTE))
        result = self._sandbox.call(TARGET, arguments, limits=limits, readable=[self.corpus.directory], scratch=scratch)
        if isinstance(result, Raised):  # architectures are data: what is raised past the trainer is the harness's
            last = (result.detail.strip().splitlines() or [""])[-1]
            raise MeasurementError(
                f"{architecture.name} could not be measured ({result.error}: {last}); nothing was recorded"
            )
        if isinstance(result, Returned):
            return trained_from_json(result.value)
        return outcome_of(result)

    def _tell(self, architecture: Architecture, spec: StretchSpec, outcome: Outcome, known: bool) -> None:
        if self._on_outcome is not None:
            self._on_outcome(architecture.name, spec, outcome, known)


def loss_of(outcome: Outcome) -> float | None:
    """The loss that ranks: held-out, latents from the prior; None for every failure."""
    return outcome.val_loss if outcome.status == "completed" else None

"""Tune both arms of a finished evolution: the same trials, the same space, each arm judged by itself.

Runs use the tuning seeds and the search-validation split and are in the run's own ledger, so none is paid for
twice and none can touch the sealed split. The settings found are recorded as one decision for both arms.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evolution.engine import Listener
from evolution.finished_run import FinishedRun
from evolution.session import LEDGER_NAME, Bench, open_bench
from frameworks.program import Program

if TYPE_CHECKING:
    from training.hyperparameter_search import SearchSpace, Trial
    from training.run_spec import RunSpec
    from training.tuned_settings import TunedSettings

STUDIES = "tuning.sqlite"


@dataclass(frozen=True, kw_only=True)
class TunedArm:
    """What the search found for one arm.

    Attributes:
        candidate: its identity.
        best: the best trial.
        untuned: mean loss of the first trial, the ladder's own settings, nats a token; None where it did not complete.
        trials: every trial.
    """

    candidate: str
    best: Trial
    untuned: float | None
    trials: tuple[Trial, ...]


def tune(
    run: FinishedRun,
    *,
    size: str | None,
    trials: int,
    seeds: int,
    space: SearchSpace,
    listener: Listener,
) -> tuple[TunedArm, TunedArm]:
    """Search settings for reference and candidate and record the best of each; the same call goes on.

    Args:
        run: what was evolved.
        size: where trials run; None takes the ladder's smallest size. Rates and batches found are factors on
            the ladder's, see `training.tuned_settings`.
        trials: trials an arm.
        seeds: tuning seeds a trial.
        space: what is tried.
        listener: called with (event, payload) as things happen.

    Raises:
        ValueError: an unknown size, a corpus that changed, or a study made with other settings.
        TuningError: no trial of an arm completed.
    """
    from evolution.ledger import Ledger

    ladder = run.request.ladder
    at = ladder.sizes[0] if size is None else ladder.size(size)
    corpus = run.corpus(listener)
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger.open(run.directory / LEDGER_NAME))
        bench = stack.enter_context(open_bench(run.request, run.directory, ledger, corpus, listener))
        tuned = []
        for arm in run.arms:
            listener("arm", {"candidate": arm.identity, "reference": arm is run.reference, "trials": trials})
            tuned.append(_tune_arm(run, bench, arm, at.name, trials, seeds, space, listener))
        settings = {arm.candidate: arm.best.settings.model_dump(mode="json") for arm in tuned}
        reason = f"best of {trials} trials an arm at size {at.name}, {seeds} tuning seeds a trial"
        key = f"tuned:{run.candidate.identity}:{at.name}:{trials}:{seeds}"
        ledger.record_once("decision", {"what": "tuned", "reason": reason, "settings": settings}, key)
    return tuned[0], tuned[1]


def _tune_arm(
    run: FinishedRun,
    bench: Bench,
    arm: Program,
    size: str,
    trials: int,
    seeds: int,
    space: SearchSpace,
    listener: Listener,
) -> TunedArm:
    from training.hyperparameter_search import HyperparameterSearch
    from training.outcome import explain
    from training.run_spec import HARNESS_VERSION
    from training.tuned_settings import TunedSettings

    def evaluate(pairs: Sequence[tuple[TunedSettings, int]]) -> list[float | str]:
        specs = [tuning_spec(run, bench, arm.identity, size, settings, index) for settings, index in pairs]
        outcomes = bench.measurement.gather((spec, arm.source) for spec in dict.fromkeys(specs))
        found = [outcomes[spec.key] for spec in specs]
        return [outcome.val_loss if outcome.status == "completed" else explain(outcome) for outcome in found]

    search = HyperparameterSearch(
        run.directory / STUDIES,
        f"{arm.identity[:24]} at {size}",
        space=space,
        default=TunedSettings.of_ladder(run.request.ladder),
        seed=run.request.config.seed,
        seeds=seeds,
        evaluate=evaluate,
        context={"size": size, "corpus": bench.corpus.hash, "harness": HARNESS_VERSION},
    )
    done = search.run(trials, progress=lambda trial: listener("trial", {"candidate": arm.identity, "trial": trial}))
    first = done[0]
    return TunedArm(
        candidate=arm.identity,
        best=min(
            (trial for trial in done if trial.state == "complete"),
            key=lambda trial: (statistics.fmean(trial.losses), trial.number),
            default=search.best(),
        ),
        untuned=statistics.fmean(first.losses) if first.state == "complete" else None,
        trials=tuple(done),
    )


def tuning_spec(
    run: FinishedRun, bench: Bench, candidate: str, size: str, settings: TunedSettings, index: int
) -> RunSpec:
    """The run of a trial on its tuning seed number `index`."""
    return bench.factory.tuning(candidate, size, index, settings.overrides(run.request.ladder.size(size)))

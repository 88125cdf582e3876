"""Hyperparameter search for one arm: Optuna's TPE over learning rate, warm-up, weight decay and batch size.

Both arms of a comparison get the same space, the same number of trials, the same first trial (the ladder's own
settings) and the same random start, and each has a study of its own: a trial is pruned only against finished trials
of its own arm, never against the other's. Trials are asked for in fixed groups of `GROUP`, and each has a sampler of
its own, seeded by its number; so neither the number of workers nor an interruption changes what is tried. Studies
live in an SQLite file; the same call goes on with an unfinished one (Bergstra et al. 2011; Akiba et al. 2019).
"""

from __future__ import annotations

import json
import math
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data.keyed_random import seed_of
from training.tuned_settings import TunedSettings

if TYPE_CHECKING:
    import optuna

GROUP = 4
"""Trials asked for at once, before any of them is told."""
_LEAST_TO_PRUNE = 5


class TuningError(ValueError):
    """A search cannot be begun or gone on with; the message says why and what to do."""


class SearchSpace(BaseModel):
    """What is tried; the same for both arms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate_factor: tuple[float, float] = (0.25, 4.0)
    """Least and most, times the ladder's rate; drawn on a log scale."""
    warmup_fraction: tuple[float, float] = (0.01, 0.3)
    """Least and most share of the steps; drawn on a log scale."""
    weight_decay: tuple[float, ...] = Field((0.0, 0.01, 0.03, 0.1, 0.3), min_length=1)
    batch_factor: tuple[float, ...] = Field((0.5, 1.0, 2.0), min_length=1)
    """Times the ladder's batch, at equal tokens."""

    @model_validator(mode="after")
    def _fits(self) -> SearchSpace:
        for name in ("learning_rate_factor", "warmup_fraction"):
            low, high = getattr(self, name)
            if not 0 < low < high or not math.isfinite(high):
                raise ValueError(f"{name} is {low}..{high}; give a least value above 0 and a larger most value")
        return self


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting tried.

    Attributes:
        number: from 0.
        settings: what was tried.
        losses: validation loss of each seed that ran, nats a token.
        state: `complete`, `pruned` (worse than the median of its own arm after its first seeds) or `failed`.
        reason: why it failed, else empty.
    """

    number: int
    settings: TunedSettings
    losses: tuple[float, ...]
    state: str
    reason: str = ""


Evaluate = Callable[[Sequence[tuple[TunedSettings, int]]], list[float | str]]
"""From (settings, seed index) pairs to a loss each, or the reason why there is none; may run them side by side."""


class HyperparameterSearch:
    """The search for one arm.

    Args:
        storage: SQLite file of the studies, made if missing; both arms may share it.
        arm: name of the arm's study.
        space: what is tried.
        default: the first trial, usually the ladder's own settings.
        seed: decides the random start and the sampler; the same for both arms.
        seeds: tuning seeds a trial runs on; its value is their mean.
        evaluate: runs settings.
        context: what else decides a result (size, corpus, harness); a study is gone on with only where it agrees.

    Raises:
        ImportError: Optuna is not installed.
        TuningError: the file is no study file, or the study in it was made with other settings.
    """

    def __init__(
        self,
        storage: Path,
        arm: str,
        *,
        space: SearchSpace,
        default: TunedSettings,
        seed: int,
        seeds: int,
        evaluate: Evaluate,
        context: dict[str, Any] | None = None,
    ) -> None:
        if seeds < 1:
            raise TuningError(f"seeds={seeds}: a trial needs at least 1")
        self._space = space
        self._seed = seed
        self._seeds = seeds
        self._evaluate = evaluate
        self._choices = {
            "weight_decay": _with(space.weight_decay, default.weight_decay),
            "batch_factor": _with(space.batch_factor, default.batch_factor),
        }
        with _quiet_optuna():
            self._study = _open_study(storage, arm)
        self._check_same(
            {
                "space": space.model_dump(mode="json"),
                "default": default.model_dump(mode="json"),
                "seed": seed,
                "seeds": seeds,
                **(context or {}),
            }
        )
        if not self._study.get_trials(deepcopy=False):
            self._study.enqueue_trial(default.model_dump())

    def run(self, trials: int, progress: Callable[[Trial], None] | None = None) -> list[Trial]:
        """Search until there are `trials` trials, those of earlier calls included.

        Args:
            trials: how many in all.
            progress: called with each trial of this call as it is told.

        Raises:
            TuningError: `trials` below 1.
        """
        if trials < 1:
            raise TuningError(f"trials={trials}: at least 1 is needed")
        with _quiet_optuna():
            for first in range(0, trials, GROUP):
                self._run_group(range(first, min(first + GROUP, trials)), progress)
        return self.trials()[:trials]

    def trials(self) -> list[Trial]:
        """Every trial that was told, in order."""
        return [_trial(frozen) for frozen in self._study.get_trials(deepcopy=False) if frozen.state.is_finished()]

    def best(self) -> Trial:
        """The complete trial with the lowest mean loss, the earliest of equals.

        Raises:
            TuningError: no trial completed.
        """
        complete = [trial for trial in self.trials() if trial.state == "complete"]
        if not complete:
            reasons = {trial.reason for trial in self.trials() if trial.reason}
            raise TuningError(f"no trial completed{': ' + '; '.join(sorted(reasons)[:3]) if reasons else ''}")
        return min(complete, key=lambda trial: (statistics.fmean(trial.losses), trial.number))

    def _run_group(self, numbers: range, progress: Callable[[Trial], None] | None) -> None:
        open_trials = [trial for number in numbers if (trial := self._ask(number)) is not None]
        settings = {trial.number: self._settings(trial) for trial in open_trials}
        losses: dict[int, list[float]] = {trial.number: [] for trial in open_trials}
        for index in range(self._seeds):
            results = self._evaluate([(settings[trial.number], index) for trial in open_trials]) if open_trials else []
            still_open = []
            for trial, result in zip(open_trials, results, strict=True):
                if isinstance(result, str):
                    self._tell(trial, "failed", losses[trial.number], progress, result)
                    continue
                losses[trial.number].append(result)
                still_open.append(trial)
                if index not in self._frozen(trial).intermediate_values:  # it is, after an interruption
                    trial.report(statistics.fmean(losses[trial.number]), index)
            # Judged once all of the group have reported, so that the order of their ends does not matter.
            last = index == self._seeds - 1
            pruned = [] if last else [trial for trial in still_open if trial.should_prune()]
            for trial in pruned:
                self._tell(trial, "pruned", losses[trial.number], progress)
            open_trials = [trial for trial in still_open if trial not in pruned]
        for trial in open_trials:
            self._tell(trial, "complete", losses[trial.number], progress)

    def _ask(self, number: int) -> optuna.Trial | None:
        """Trial `number`: new, or left open by an interrupted call; None where it was told."""
        import optuna

        self._study.sampler = optuna.samplers.TPESampler(
            seed=seed_of("tuning", self._seed, number) % 2**32, n_startup_trials=10, constant_liar=True
        )
        there = self._study.get_trials(deepcopy=False)
        if number < len(there) and there[number].state.is_finished():
            return None
        if number < len(there) and there[number].state == optuna.trial.TrialState.RUNNING:
            trial = optuna.Trial(self._study, there[number]._trial_id)
        else:
            trial = self._study.ask()
        self._settings(trial)  # drawn now: the next trial's sampler sees them
        return trial

    def _settings(self, trial: optuna.Trial) -> TunedSettings:
        space = self._space
        return TunedSettings(
            learning_rate_factor=trial.suggest_float("learning_rate_factor", *space.learning_rate_factor, log=True),
            warmup_fraction=trial.suggest_float("warmup_fraction", *space.warmup_fraction, log=True),
            weight_decay=trial.suggest_categorical("weight_decay", self._choices["weight_decay"]),
            batch_factor=trial.suggest_categorical("batch_factor", self._choices["batch_factor"]),
        )

    def _tell(
        self,
        trial: optuna.Trial,
        state: str,
        losses: list[float],
        progress: Callable[[Trial], None] | None,
        reason: str = "",
    ) -> None:
        from optuna.trial import TrialState

        trial.set_user_attr("losses", losses)
        trial.set_user_attr("state", state)
        trial.set_user_attr("reason", reason)
        if state == "complete":
            self._study.tell(trial, statistics.fmean(losses))
        else:  # TPE takes a pruned trial without a value for the worst there is; a failure is never a number
            self._study.tell(trial, state=TrialState.PRUNED)
        if progress is not None:
            progress(_trial(self._frozen(trial)))

    def _frozen(self, trial: optuna.Trial) -> optuna.trial.FrozenTrial:
        return self._study.get_trials(deepcopy=False)[trial.number]

    def _check_same(self, made_with: dict[str, Any]) -> None:
        now = json.loads(json.dumps(made_with, sort_keys=True))
        then = self._study.user_attrs.get("made_with")
        if then is None:
            self._study.set_user_attr("made_with", now)
            return
        changed = [name for name in now if then.get(name) != now[name]]
        if changed:
            shown = "; ".join(f"{name} was {then.get(name)!r}, now {now[name]!r}" for name in changed[:3])
            raise TuningError(
                f"the study {self._study.study_name!r} was made with other settings ({shown}); use the same ones to go "
                "on, or another file"
            )


def _with(choices: Sequence[float], value: float) -> tuple[float, ...]:
    return tuple(choices) if value in choices else (*choices, value)


def _trial(frozen: optuna.trial.FrozenTrial) -> Trial:
    attributes = frozen.user_attrs
    return Trial(
        number=frozen.number,
        settings=TunedSettings(**frozen.params),
        losses=tuple(attributes["losses"]),
        state=attributes["state"],
        reason=attributes["reason"],
    )


def _open_study(storage: Path, arm: str) -> optuna.Study:
    try:
        import optuna
    except ImportError as error:
        raise ImportError(f"tuning needs Optuna: pip install 'evoscale[tune]' ({error})") from None
    storage.parent.mkdir(parents=True, exist_ok=True)
    try:
        return optuna.create_study(
            storage=f"sqlite:///{storage}",
            study_name=arm,
            direction="minimize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_LEAST_TO_PRUNE),
        )
    except Exception as error:  # SQLAlchemy's errors, which need not be imported for this
        reason = str(error).strip().splitlines()[0]
        raise TuningError(f"{storage} cannot be used as a file of studies ({reason}); move it away") from None


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Without Optuna's own log lines and its warning that the constant liar is experimental."""
    try:
        import optuna
    except ImportError:
        yield
        return
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", "Fixed parameter", UserWarning)  # the ladder's own may lie outside
            yield
    finally:
        optuna.logging.set_verbosity(before)

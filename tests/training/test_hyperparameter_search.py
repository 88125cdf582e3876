"""The search over hyperparameters: the same trials for both arms, resumable, deterministic, pruned within an arm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from training.hyperparameter_search import HyperparameterSearch, SearchSpace, TuningError
from training.ladder import ladder
from training.tuned_settings import TunedSettings

DEFAULT = TunedSettings(warmup_fraction=0.1, weight_decay=0.0)


def bowl(settings: TunedSettings, index: int) -> float:
    """Least at twice the ladder's rate."""
    return 3.0 + math.log2(settings.learning_rate_factor / 2.0) ** 2 + settings.weight_decay + 0.01 * index


def evaluate(pairs: Sequence[tuple[TunedSettings, int]]) -> list[float | str]:
    return [bowl(settings, index) for settings, index in pairs]


def search(path: Path, arm: str = "reference", **changes: Any) -> HyperparameterSearch:
    settings: dict[str, Any] = {
        "space": SearchSpace(),
        "default": DEFAULT,
        "seed": 1,
        "seeds": 2,
        "evaluate": evaluate,
    }
    return HyperparameterSearch(path, arm, **(settings | changes))


def test_the_first_trial_is_the_ladders_and_the_best_is_near_the_optimum(tmp_path: Path) -> None:
    found = search(tmp_path / "tuning.sqlite")
    trials = found.run(16)
    assert trials[0].settings == DEFAULT
    assert [trial.number for trial in trials] == list(range(16))
    best = found.best()
    assert best.state == "complete"
    assert len(best.losses) == 2
    assert 1.0 < best.settings.learning_rate_factor < 4.0
    assert sum(best.losses) < sum(trials[0].losses)


def test_both_arms_start_with_the_same_trials_and_never_prune_each_other(tmp_path: Path) -> None:
    def far_worse(pairs: Sequence[tuple[TunedSettings, int]]) -> list[float | str]:
        return [10.0 + bowl(settings, index) for settings, index in pairs]

    def alone_and_beside(folder: Path, beside: bool) -> list[Any]:
        if beside:
            search(folder / "t.sqlite", "reference").run(12)
        return search(folder / "t.sqlite", "candidate", evaluate=far_worse).run(12)

    beside = alone_and_beside(tmp_path / "a", True)
    alone = alone_and_beside(tmp_path / "b", False)
    assert beside == alone  # the other arm's losses change nothing, pruning included
    reference = search(tmp_path / "a" / "t.sqlite", "reference").trials()
    assert [trial.settings for trial in reference[:8]] == [trial.settings for trial in beside[:8]]
    assert any(trial.state == "pruned" for trial in beside)


def test_interrupted_anywhere_it_goes_on_to_the_same_trials(tmp_path: Path) -> None:
    whole = search(tmp_path / "whole.sqlite").run(9)
    for stop_after in (2, 5):
        calls = [0]

        def stopping(
            pairs: Sequence[tuple[TunedSettings, int]], calls: list[int] = calls, at: int = stop_after
        ) -> list[float | str]:
            calls[0] += 1
            if calls[0] == at:
                raise KeyboardInterrupt
            return evaluate(pairs)

        path = tmp_path / f"stopped{stop_after}.sqlite"
        with pytest.raises(KeyboardInterrupt):
            search(path, evaluate=stopping).run(9)
        assert search(path).run(9) == whole


def test_more_trials_extend_a_study(tmp_path: Path) -> None:
    search(tmp_path / "t.sqlite").run(4)
    assert search(tmp_path / "t.sqlite").run(6) == search(tmp_path / "u.sqlite").run(6)


def test_a_failed_trial_is_no_number_and_cannot_be_best(tmp_path: Path) -> None:
    def failing(pairs: Sequence[tuple[TunedSettings, int]]) -> list[float | str]:
        return [
            "diverged at step 3" if settings.learning_rate_factor > 1.0 else bowl(settings, index)
            for settings, index in pairs
        ]

    found = search(tmp_path / "t.sqlite", evaluate=failing)
    trials = found.run(8)
    failed = [trial for trial in trials if trial.state == "failed"]
    assert failed
    assert all(trial.losses == () and trial.reason == "diverged at step 3" for trial in failed)
    assert found.best().settings.learning_rate_factor <= 1.0


def test_when_every_trial_fails_the_reason_is_told(tmp_path: Path) -> None:
    found = search(tmp_path / "t.sqlite", evaluate=lambda pairs: ["diverged at step 3"] * len(pairs))
    found.run(4)
    with pytest.raises(TuningError, match="no trial completed: diverged at step 3"):
        found.best()


def test_mistakes_are_told_in_one_sentence(tmp_path: Path) -> None:
    search(tmp_path / "t.sqlite").run(1)
    with pytest.raises(TuningError, match=r"made with other settings \(seed was 1, now 2\)"):
        search(tmp_path / "t.sqlite", seed=2)
    (tmp_path / "junk.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(TuningError, match=r"junk\.sqlite cannot be used"):
        search(tmp_path / "junk.sqlite")
    assert (tmp_path / "junk.sqlite").read_bytes().startswith(b"not a database")
    with pytest.raises(TuningError, match="trials=0"):
        search(tmp_path / "t.sqlite").run(0)
    with pytest.raises(ValueError, match="learning_rate_factor is"):
        SearchSpace(learning_rate_factor=(2.0, 1.0))


def test_every_setting_trains_the_same_tokens() -> None:
    for size in ladder("demo").sizes:
        for factor in (0.5, 1.0, 2.0):
            settings = TunedSettings(warmup_fraction=0.1, weight_decay=0.1, batch_factor=factor)
            overrides = settings.overrides(size)
            assert overrides["steps"] * overrides["batch_size"] == size.steps * size.batch_size
    size = ladder("demo").sizes[0]
    own = TunedSettings.of_ladder(ladder("demo")).overrides(size)
    assert own["learning_rate"] == size.learning_rate
    assert own["steps"] == size.steps

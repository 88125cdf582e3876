"""Racing: who is stopped and by what, what protects the sprinter's rivals, the budget, and replays."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from evolution.config import RacingSection
from evolution.race_replay import full_scores, replay_race, resampled, rungs_of
from evolution.racing import Race, Rung
from tests.analysis.curve_tables import made_up_table


def rungs(fidelity: float | None, seeds: int = 2) -> list[Rung]:
    return [
        Rung(size=size, seed=seed, step=400, tokens=100, fidelity=fidelity)
        for seed in range(seeds)
        for size in ("d32", "d48")
    ]


def raced(section: RacingSection, course: list[Rung], rows: dict[str, list[float]]) -> dict[str, str | None]:
    """Rule that stopped each candidate, measured rung by rung together."""
    race, stopped = Race(section, course), dict.fromkeys(rows)
    for index in range(len(course)):
        alive = [name for name in rows if stopped[name] is None]
        for name in alive:
            race.note(name, rows[name][index])
        for name in alive:
            stop = race.judge(name)
            stopped[name] = None if stop is None else stop.rule
    return stopped


FIELD = {f"c{index}": [0.01 * index - 0.03] * 4 for index in range(8)}


def test_the_worse_half_does_not_clear_the_hurdle() -> None:
    section = RacingSection(least_population=4, least_kept=1, noise_sd=10.0)
    stopped = raced(section, rungs(0.9), FIELD)
    assert stopped["c0"] is None
    assert [stopped[f"c{index}"] for index in range(4, 8)] == ["hurdle"] * 4


def test_a_rung_of_low_or_unknown_fidelity_eliminates_nobody() -> None:
    section = RacingSection(least_population=4, least_kept=1)
    for fidelity in (0.3, None):
        assert set(raced(section, rungs(fidelity), FIELD).values()) == {None}


def test_fidelity_is_measured_on_those_that_went_all_the_way() -> None:
    course = rungs(None)
    race = Race(RacingSection(least_finished=4), course)
    for name, early, late in (("a", 1.0, 4.0), ("b", 2.0, 3.0), ("c", 3.0, 2.0), ("d", 4.0, 1.0)):
        assert race.fidelity(0) is None
        for value in (early, late, late, late):
            race.note(name, value)
    assert race.fidelity(0) == pytest.approx(-1.0)
    assert race.fidelity(3) == pytest.approx(1.0)
    race.note("late", 9.0)
    assert race.judge("late") is None, "the first rung ranks backwards here, so it may not eliminate"


def test_a_candidate_worse_than_the_reference_is_stopped_by_the_test_after_a_whole_seed() -> None:
    section = RacingSection(least_population=100, noise_sd=0.01)
    rows = {"worse": [0.06, 0.07, 0.06, 0.07], "equal": [0.001, -0.001, 0.0, 0.001]}
    race = Race(section, rungs(0.9))
    race.note("worse", 0.2)
    assert race.judge("worse") is None, "one size says nothing about the others"
    assert raced(section, rungs(0.9), rows) == {"worse": "reference", "equal": None}


def test_a_candidate_far_behind_the_best_is_stopped_and_the_best_never() -> None:
    section = RacingSection(least_population=100, noise_sd=0.01)
    rows = {"best": [-0.2] * 4, "behind": [-0.05, -0.06, -0.05, -0.06]}
    assert raced(section, rungs(0.9), rows) == {"best": None, "behind": "best"}


def test_better_at_small_sizes_and_worse_at_large_is_scored_over_sizes() -> None:
    race = Race(RacingSection(), rungs(0.9))
    race.note("crossing", -0.1)
    race.note("crossing", +0.2)
    assert race.score("crossing", 1) == pytest.approx(0.05)


def test_failures_and_the_finished_cannot_be_noted() -> None:
    race = Race(RacingSection(), rungs(0.9)[:1])
    with pytest.raises(ValueError, match="not a number"):
        race.note("a", math.nan)
    race.note("a", 0.1)
    with pytest.raises(ValueError, match="out of the race"):
        race.note("a", 0.1)
    with pytest.raises(ValueError, match="at least one rung"):
        Race(RacingSection(), [])


def test_replays_find_the_winner_of_full_training_for_a_fraction_of_its_tokens() -> None:
    table = made_up_table(30)
    course = rungs_of(table)
    found = [replay_race(resampled(table, np.random.default_rng(i)), RacingSection(), course) for i in range(20)]
    assert sum(replay.equal() for replay in found) >= 19
    assert float(np.median([replay.share for replay in found])) <= 0.25
    assert all(replay.tokens == round(replay.share * resampled_tokens(table)) for replay in found)


def resampled_tokens(table: object) -> int:
    return resampled(table, np.random.default_rng(0)).full_tokens  # type: ignore[arg-type]


def test_a_race_that_trusts_the_misleading_rungs_loses_the_winner_more_often() -> None:
    """The guard against the sprinter is what protects: believe every rung and eliminate most at once."""
    table = made_up_table(30, noise=0.002)
    course = rungs_of(table)
    gullible = [dataclasses.replace(rung, fidelity=1.0) for rung in course]
    hasty = RacingSection(keep=0.1, least_kept=1)
    seeds = range(15)
    careful = [replay_race(resampled(table, np.random.default_rng(i)), RacingSection(), course) for i in seeds]
    fooled = [replay_race(resampled(table, np.random.default_rng(i)), hasty, gullible) for i in seeds]
    assert sum(r.winner == r.full_winner for r in careful) > sum(r.winner == r.full_winner for r in fooled)


def test_the_budget_is_never_passed_and_one_that_buys_nothing_is_an_error() -> None:
    table = made_up_table(10)
    course = rungs_of(table)
    first = course[0].tokens * 11
    replay = replay_race(table, RacingSection(budget_tokens=2 * first), course)
    assert replay.tokens <= 2 * first
    with pytest.raises(ValueError, match=r"racing\.budget_tokens"):
        replay_race(table, RacingSection(budget_tokens=first - 1), course)


def test_a_resample_keeps_the_effects_and_redraws_the_noise() -> None:
    table = made_up_table(10, 4, noise=0.004)
    truth = full_scores(table)
    drawn = [full_scores(resampled(table, np.random.default_rng(i), share=1.0)) for i in range(60)]
    for name, score in truth.items():
        values = [scores[name] for scores in drawn]
        assert np.mean(values) == pytest.approx(score, abs=0.003)
        assert 0.0005 < np.std(values) < 0.01

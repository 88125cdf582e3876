"""The bandit finds the better proposer, deterministically, and counts what is in flight."""

from __future__ import annotations

import pytest

from evolution.proposers.bandit import CLIP, Bandit
from experiments.benches.proposers import bandit_share


def test_it_finds_the_best_of_three_on_nearly_every_seed() -> None:
    # Seeds that the exploration factor was not chosen on.
    assert bandit_share(200, first=50_000) >= 0.9


def test_the_same_seed_and_rewards_give_the_same_choices() -> None:
    def choices() -> list[int]:
        bandit = Bandit(3, seed=4)
        chosen = []
        for step in range(40):
            arm = bandit.choose()
            bandit.credit(arm, (arm * step) % 5 - 2.0)
            chosen.append(arm)
        return chosen

    assert choices() == choices()
    assert len({*choices()[:3]}) == 3


def test_what_is_in_flight_counts_as_asked() -> None:
    bandit = Bandit(2, seed=0)
    assert {bandit.choose(), bandit.choose()} == {0, 1}
    bandit.credit(0, 0.1)
    bandit.credit(1, 0.1)
    assert len({bandit.choose() for _ in range(2)}) == 2


def test_failures_count_as_the_worst_gain_and_outliers_are_clipped() -> None:
    bandit = Bandit(2, seed=0)
    bandit.credit(0, None)
    bandit.credit(1, 1e9)
    assert bandit.mean(0) == -CLIP
    assert bandit.mean(1) == CLIP


def test_per_cost_a_cheap_proposer_with_the_same_gain_is_better() -> None:
    bandit = Bandit(2, seed=0, per_cost=True)
    for _ in range(5):
        bandit.credit(0, 1.0, cost=1.0)
        bandit.credit(1, 1.0, cost=10.0)
    assert bandit.mean(0) == pytest.approx(10 * bandit.mean(1))


def test_closed_proposers_are_not_chosen() -> None:
    bandit = Bandit(2, seed=0)
    assert [bandit.choose(frozenset({0})) for _ in range(3)] == [1, 1, 1]
    with pytest.raises(ValueError, match="no proposer is left"):
        bandit.choose(frozenset({0, 1}))

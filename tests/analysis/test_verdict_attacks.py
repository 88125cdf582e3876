"""Attempts to talk the verdict into a promotion it should not give, or to hide what a reader must know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from analysis.promotion import PromotionPlan, Verdict, judge

SIZES = ("d32", "d48", "d80")
SEEDS = tuple(range(20_000, 20_006))


def verdict_on(differences: np.ndarray, **changes: Any) -> Verdict:
    """Judge one candidate whose differences at every seed and size are given, shape (seeds, sizes)."""
    plan = PromotionPlan(
        shortlist=("c",),
        reference="r",
        sizes=SIZES,
        seeds=tuple(20_000 + i for i in range(len(differences))),
        **changes,
    )
    rows = [
        {
            "candidate": arm,
            "size": size,
            "seed": seed,
            "status": "Completed",
            "val_loss": 3.5 + (differences[s, column] if arm == "c" else 0.0),
            "n_parameters": 1_000,
        }
        for arm in ("r", "c")
        for s, seed in enumerate(plan.seeds)
        for column, size in enumerate(SIZES)
    ]
    (verdict,) = judge(plan, rows)
    return verdict


def noise(key: int, n: int = 6, sd: float = 0.004) -> np.ndarray:
    return np.random.default_rng(key).normal(0, sd, (n, 3))


def test_one_lucky_outlier_seed_does_not_promote_a_null() -> None:
    differences = noise(0)
    differences[2] -= 0.9
    found = verdict_on(differences)
    assert found.decision == "undecided"
    assert "allows both nothing and" in found.sentence


def test_one_unlucky_outlier_seed_does_not_turn_a_real_gain_into_a_loss() -> None:
    differences = noise(1) - 0.05
    differences[2] += 0.9
    assert verdict_on(differences).decision == "undecided"


def test_better_at_small_sizes_and_worse_at_the_largest_is_said_in_the_sentence() -> None:
    found = verdict_on(noise(2) + np.array([-0.12, -0.08, 0.03]))
    assert found.decision == "promoted"
    assert "at size d80 it shows no gain (+0.03" in found.sentence
    assert "shows no gain" not in verdict_on(noise(2) - 0.05).sentence


def test_ties_at_most_seeds_cannot_be_promoted() -> None:
    differences = np.zeros((6, 3))
    differences[0] = -0.3
    assert verdict_on(differences).decision != "promoted"


def test_rounding_noise_round_an_exact_null_is_no_gain() -> None:
    assert verdict_on(noise(3, sd=1e-9) - 1e-9).decision == "not promoted"


def test_one_seed_copied_under_other_names_is_told_as_a_warning() -> None:
    """Dependent seeds cannot be seen in general; the extreme of it, no spread at all, can."""
    found = verdict_on(np.tile(noise(4)[:1] - 0.05, (6, 1)))
    assert "check that the seed reaches the run" in found.sentence


def test_two_seeds_are_too_few_for_noise_to_be_promoted_often() -> None:
    promoted = sum(verdict_on(noise(key, n=2, sd=0.03)).decision == "promoted" for key in range(300))
    assert promoted <= 9, "one in a hundred is the level; nine of 300 lies beyond its 99.7 % bound"


def test_stopping_when_it_looks_good_is_what_the_plan_forbids() -> None:
    """Judging after every seed promotes nulls several times as often as the one look that was declared."""
    tries, peeked, once = 150, 0, 0
    for key in range(tries):
        differences = noise(1_000 + key, n=12, sd=0.05)
        looks = [verdict_on(differences[:n], alpha=0.05).decision == "promoted" for n in range(3, 13)]
        peeked += any(looks)
        once += looks[-1]
    assert once / tries <= 0.1
    assert peeked > once


@pytest.mark.parametrize("lost", ["r", "c"])
def test_a_missing_run_is_an_error_and_never_filled_in(lost: str) -> None:
    plan = PromotionPlan(shortlist=("c",), reference="r", sizes=SIZES, seeds=SEEDS)
    rows = [
        {"candidate": arm, "size": size, "seed": seed, "status": "Completed", "val_loss": 3.5, "n_parameters": 1_000}
        for arm in ("r", "c")
        for seed in SEEDS
        for size in SIZES
        if (arm, size, seed) != (lost, "d48", SEEDS[3])
    ]
    with pytest.raises(ValueError, match=r"d48.*20003|20003.*d48"):
        judge(plan, rows)

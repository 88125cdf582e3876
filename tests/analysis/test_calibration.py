"""Error rates of whole searches: the two-stage rule holds where best-of-N does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis.calibration import promoted_rows, simulate_searches, wilson_interval
from analysis.promotion import PromotionPlan, judge

NULLS = np.random.default_rng(0).normal(0.0, 0.02, size=(60, 3))


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (3, 10), (1, 1), (210, 210), (17, 400)])
def test_wilson_equals_scipy(successes, trials):
    peer = stats.binomtest(successes, trials).proportion_ci(0.9, method="wilson")
    ours = wilson_interval(successes, trials, confidence=0.9)
    assert (ours.low, ours.high) == pytest.approx((peer.low, peer.high), abs=1e-12)
    assert ours.rate == successes / trials


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_needs_counts_that_fit(successes, trials):
    with pytest.raises(ValueError, match="successes must lie between 0 and trials"):
        wilson_interval(successes, trials)


def test_two_stages_hold_the_level_and_best_of_n_does_not():
    result = simulate_searches(NULLS, rng=np.random.default_rng(1), n_searches=500)
    assert result.two_stage.low <= 0.01
    assert result.naive_best.rate > 0.8
    assert result.naive_tested.rate > 5 * max(result.two_stage.rate, 0.01)
    assert result.winners_gain > 0.01


def test_the_level_is_used_up_when_nothing_else_stops_a_null():
    """alpha .2, no least effect, one candidate confirmed: the share must be the level itself, not far below it."""
    result = simulate_searches(
        NULLS, rng=np.random.default_rng(2), n_searches=2_000, shortlist=1, alpha=0.2, least_effect=0.0, n_candidates=2
    )
    assert abs(result.two_stage.rate - 0.2) < 3 * math.sqrt(0.2 * 0.8 / 2_000)


def test_more_candidates_make_best_of_n_worse_and_two_stages_not():
    few, many = (
        simulate_searches(NULLS, rng=np.random.default_rng(3), n_searches=300, n_candidates=n) for n in (4, 80)
    )
    assert many.naive_best.rate > few.naive_best.rate + 0.2
    assert many.winners_gain > few.winners_gain
    assert many.two_stage.rate < 0.03


def test_a_search_is_repeatable_and_exact_nulls_are_never_found():
    one, two = (simulate_searches(NULLS, rng=np.random.default_rng(4), n_searches=50) for _ in range(2))
    assert one == two
    exact = simulate_searches(np.zeros((5, 2)), rng=np.random.default_rng(5), n_searches=50)
    assert (exact.two_stage.successes, exact.naive_best.successes, exact.winners_gain) == (0, 0, 0.0)


def test_one_search_seed_has_no_naive_test():
    assert (
        simulate_searches(NULLS[:, 0], rng=np.random.default_rng(6), n_searches=20, search_seeds=1).naive_tested is None
    )


def test_the_fast_rule_is_the_rule_of_judge():
    names = tuple(f"c{i}" for i in range(5))
    plan = PromotionPlan(shortlist=names, reference="r", sizes=("s",), seeds=tuple(range(20_000, 20_007)), alpha=0.05)
    rng, promoted_seen = np.random.default_rng(7), 0
    for trial in range(40):
        differences = rng.normal(-0.012, 0.015, size=(5, 7))
        differences[0] = [0.0, -0.02][trial % 2]
        rows = [
            {"candidate": name, "size": "s", "seed": seed, "status": "Completed", "n_parameters": 10, "val_loss": loss}
            for name, losses in [("r", np.zeros(7)), *zip(names, differences, strict=True)]
            for seed, loss in zip(plan.seeds, losses.tolist(), strict=True)
        ]
        slow = [verdict.decision == "promoted" for verdict in judge(plan, rows)]
        assert promoted_rows(differences, alpha=0.05, least_effect=plan.least_effect).tolist() == slow
        promoted_seen += sum(slow)
    assert 20 < promoted_seen < 180


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"null_differences": [0.1]}, "at least 2 runs"),
        ({"null_differences": [0.1, math.nan]}, "must be finite"),
        ({"n_candidates": 0}, "n_candidates must be at least 1; got 0"),
        ({"shortlist": 50}, r"shortlist \(50\) must not exceed n_candidates \(40\)"),
        ({"confirmation_seeds": 1}, "must be at least 2"),
        ({"alpha": 0.0}, "alpha must lie strictly"),
    ],
)
def test_bad_arguments_are_errors(change, message):
    arguments = {"null_differences": NULLS, "rng": np.random.default_rng(0), **change}
    with pytest.raises(ValueError, match=message):
        simulate_searches(arguments.pop("null_differences"), **arguments)

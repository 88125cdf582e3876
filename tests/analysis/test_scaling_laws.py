"""Bootstrap of scaling laws, prediction, crossing and the extrapolation check, on laws that are known."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from analysis.power_law import fit_many
from analysis.scaling_laws import bootstrap_curves, crossing, extrapolation_check, predicted_difference

SIZES = np.array([0.5e6, 1e6, 2e6, 4e6])
BASE = (1.2, 1.1, 0.34)


def law(n, offset, amplitude, alpha):
    return offset + amplitude * (np.asarray(n) / 1e6) ** -alpha


def arms_of(seed, candidate=(1.2, 1.0, 0.34), *, n_seeds=8, shared=0.05, noise=0.003):
    """Losses of two arms that share a large seed effect at every size, shape (seeds, sizes)."""
    rng = np.random.default_rng(seed)
    seeds = shared * rng.standard_normal((n_seeds, 1))
    return {
        name: law(SIZES, *truth) + seeds + noise * rng.standard_normal((n_seeds, 4))
        for name, truth in {"reference": BASE, "candidate": candidate}.items()
    }


def test_resamples_are_shared_between_arms_so_that_seeds_cancel():
    curves = bootstrap_curves(SIZES, arms_of(0), rng=np.random.default_rng(1), n_resamples=300)
    alone = curves["candidate"].predict(4e6)
    paired = predicted_difference(curves["candidate"], curves["reference"], 4e6)
    assert paired.high - paired.low < 0.3 * (alone.high - alone.low)
    assert paired.estimate == pytest.approx(-0.1 * 4**-0.34, abs=0.01)


def test_the_prediction_interval_covers_the_truth():
    """Percentiles over eight seeds are a little narrow: at 95 % at least four in five are asked for."""
    covered, trials = 0, 40
    for seed in range(trials):
        arms = {"reference": arms_of(seed, shared=0.0)["reference"]}
        rng = np.random.default_rng(seed)
        curve = bootstrap_curves(SIZES, arms, rng=rng, n_resamples=100, robust=False)["reference"]
        interval = curve.predict(2e6)
        covered += interval.low <= law(2e6, *BASE) <= interval.high
    assert covered / trials >= 0.8


def test_parameters_have_intervals_round_their_estimates():
    curve = bootstrap_curves(SIZES, arms_of(3, shared=0.0), rng=np.random.default_rng(0), n_resamples=300)["reference"]
    intervals = curve.parameters()
    assert list(intervals) == ["offset", "amplitude", "alpha"]
    for interval in intervals.values():
        assert interval.low < interval.estimate < interval.high


def test_the_spread_of_resamples_is_that_of_fresh_data():
    fresh = np.stack([arms_of(seed, shared=0.0)["reference"] for seed in range(300)])
    truth = fit_many(SIZES, fresh, robust=False)[:, 2].std()
    spreads = []
    for seed in range(12):
        arms = {"reference": fresh[seed]}
        curve = bootstrap_curves(SIZES, arms, rng=np.random.default_rng(seed), n_resamples=200, robust=False)[
            "reference"
        ]
        spreads.append(curve.resamples[:, 2].std())
    assert np.mean(spreads) == pytest.approx(truth, rel=0.25)


def test_the_bootstrap_is_repeatable_and_fast():
    start = time.process_time()
    one = bootstrap_curves(SIZES, arms_of(4), rng=np.random.default_rng(5))
    assert time.process_time() - start < 20
    two = bootstrap_curves(SIZES, arms_of(4), rng=np.random.default_rng(5))
    assert one["candidate"].resamples.shape == (1_000, 3)
    assert np.array_equal(one["candidate"].resamples, two["candidate"].resamples)


def test_three_sizes_still_get_an_interval_from_seeds_and_say_exact():
    arms = {name: table[:, :3] for name, table in arms_of(6, shared=0.0).items()}
    curve = bootstrap_curves(SIZES[:3], arms, rng=np.random.default_rng(0), n_resamples=200)["candidate"]
    assert curve.law.exact
    assert curve.law.residual_sd is None
    interval = curve.predict(4e6)
    assert interval.low < interval.high


CROSSING_CANDIDATE = (1.5, 0.7, 0.34)


def true_crossing():
    """1.5 + .7 x^-.34 = 1.2 + 1.1 x^-.34, with x in millions."""
    return 1e6 * (0.4 / 0.3) ** (1 / 0.34)


def test_a_crossing_is_found_with_an_interval_that_holds_it():
    arms = arms_of(7, CROSSING_CANDIDATE, noise=0.001)
    curves = bootstrap_curves(SIZES, arms, rng=np.random.default_rng(8), n_resamples=300)
    result = crossing(curves["candidate"], curves["reference"], n_low=1e5, n_high=1e7)
    assert result.low < true_crossing() < result.high
    assert result.n_parameters == pytest.approx(true_crossing(), rel=0.2)
    assert result.share > 0.95
    assert (result.better_below, result.better_above) == ("candidate", "reference")


def test_a_crossing_without_noise_is_exact():
    arms = arms_of(9, CROSSING_CANDIDATE, noise=0.0, shared=0.0)
    curves = bootstrap_curves(SIZES, arms, rng=np.random.default_rng(0), n_resamples=20)
    result = crossing(curves["candidate"], curves["reference"], n_low=1e5, n_high=1e7)
    assert result.n_parameters == pytest.approx(true_crossing(), rel=1e-5)
    assert (result.low, result.high) == pytest.approx((true_crossing(), true_crossing()), rel=1e-5)


def test_parallel_and_identical_curves_do_not_cross():
    arms = arms_of(10, noise=0.0)
    curves = bootstrap_curves(SIZES, arms, rng=np.random.default_rng(0), n_resamples=20)
    apart = crossing(curves["candidate"], curves["reference"], n_low=1e5, n_high=1e8)
    assert (apart.n_parameters, apart.low, apart.high, apart.share) == (None, None, None, 0.0)
    same = crossing(curves["reference"], curves["reference"], n_low=1e5, n_high=1e8)
    assert (same.n_parameters, same.share, same.better_below, same.better_above) == (None, 0.0, "equal", "equal")


def test_the_extrapolation_check_shows_the_log_linear_bias():
    sizes = np.array([8e6, *SIZES])
    check = extrapolation_check(sizes, law(sizes, *BASE))
    assert check.n_parameters == 8e6
    assert not check.exact
    assert check.power_law_error == pytest.approx(0.0, abs=1e-6)
    assert check.log_linear_error == pytest.approx(-0.117, abs=1e-3)
    assert extrapolation_check(SIZES, law(SIZES, *BASE)).exact


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda arms, rng: bootstrap_curves(SIZES, {}, rng=rng), "of no arm"),
        (lambda arms, rng: bootstrap_curves(SIZES, {**arms, "x": arms["candidate"][:4]}, rng=rng), "same seeds"),
        (lambda arms, rng: bootstrap_curves(SIZES, {"x": BASE_ROW}, rng=rng), "at least 2 seeds"),
        (lambda arms, rng: bootstrap_curves(SIZES, arms, rng=rng, n_resamples=0), "at least 1; got 0"),
        (lambda arms, rng: extrapolation_check(SIZES[:3], BASE_ROW[:3]), "at least 4 sizes"),
    ],
)
def test_bad_arguments_are_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(arms_of(0), np.random.default_rng(0))


BASE_ROW = law(SIZES, *BASE)


def test_curves_of_different_bootstraps_and_empty_ranges_are_refused():
    one = bootstrap_curves(SIZES, arms_of(0), rng=np.random.default_rng(0), n_resamples=10)
    other = bootstrap_curves(SIZES, arms_of(0), rng=np.random.default_rng(0), n_resamples=11)
    with pytest.raises(ValueError, match="one call to bootstrap_curves"):
        predicted_difference(one["candidate"], other["reference"], 1e6)
    for n_low, n_high in ((2e6, 1e6), (0.0, 1e6), (1e6, math.inf)):
        with pytest.raises(ValueError, match="0 < n_low < n_high"):
            crossing(one["candidate"], one["reference"], n_low=n_low, n_high=n_high)


def test_the_interval_round_an_extrapolation_holds_what_was_measured_in_nine_of_ten():
    held = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        table = arms_of(seed)["reference"]
        held.append(extrapolation_check(SIZES, table, rng=rng, confidence=0.9, n_resamples=60).inside)
    assert 0.7 <= np.mean(held) <= 1.0


def test_a_law_that_breaks_at_the_largest_size_is_seen():
    table = arms_of(3)["reference"].copy()
    table[:, SIZES.argmax()] += 0.2
    check = extrapolation_check(SIZES, table, rng=np.random.default_rng(0))
    assert check.inside is False
    assert check.low is not None
    assert check.low < check.power_law < check.high < check.measured


def test_without_a_generator_or_seeds_there_is_no_interval():
    assert extrapolation_check(SIZES, BASE_ROW).inside is None
    assert extrapolation_check(SIZES, BASE_ROW, rng=np.random.default_rng(0)).low is None


def test_intervals_of_few_seeds_hold_the_truth_as_often_as_they_say():
    """Plain percentiles of these resamples do so in about 80 of 100."""
    held = []
    for seed in range(40):
        table = law(SIZES, *BASE) + 0.003 * np.random.default_rng(seed).standard_normal((6, SIZES.size))
        curve = bootstrap_curves(SIZES, {"arm": table}, rng=np.random.default_rng(seed), n_resamples=200, robust=False)
        interval = curve["arm"].parameters(confidence=0.9)["alpha"]
        held.append(interval.low <= BASE[2] <= interval.high)
    assert 0.8 <= np.mean(held) <= 1.0

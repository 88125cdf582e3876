"""The power law with offset: it recovers known laws, equals scipy's fits, and is plain about three sizes."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy import optimize

from analysis.power_law import fit_log_linear, fit_many, fit_power_law

SIZES = np.array([0.5e6, 1e6, 2e6, 4e6])
LAWS = [(1.2, 1.1, 0.34), (0.0, 3.0, 0.1), (2.5, 0.4, 1.0), (3.1, 0.05, 2.0), (1.69, 2.0, 0.28)]


def law(n, offset, amplitude, alpha):
    """L(N) with the amplitude at one million parameters."""
    return offset + amplitude * (n / 1e6) ** -alpha


@pytest.mark.parametrize("truth", LAWS)
@pytest.mark.parametrize("n_sizes", [3, 4])
def test_a_law_without_noise_is_recovered(truth, n_sizes):
    sizes = SIZES[:n_sizes]
    fit = fit_power_law(sizes, law(sizes, *truth))
    assert fit.predict(8e6) == pytest.approx(law(8e6, *truth), abs=1e-6)
    assert fit.alpha == pytest.approx(truth[2], rel=1e-4)
    assert fit.offset == pytest.approx(truth[0], abs=1e-4)
    assert fit.exact == (n_sizes == 3)


def test_three_sizes_pass_through_the_means_and_claim_no_error():
    losses = np.array([[3.52, 3.40, 3.33], [3.56, 3.44, 3.35]])
    sizes = [24_896, 55_776, 154_400]
    fit = fit_power_law(sizes, losses)
    assert fit.exact
    assert fit.residual_sd is None
    for n, mean in zip(sizes, losses.mean(axis=0), strict=True):
        assert fit.predict(n) == pytest.approx(mean, abs=1e-7)


@pytest.mark.parametrize("seed", range(6))
def test_least_squares_equals_scipy_from_many_starts(seed):
    rng = np.random.default_rng(seed)
    losses = law(SIZES, *LAWS[seed % len(LAWS)]) + rng.normal(0, 0.004, (5, 4))
    fit = fit_power_law(SIZES, losses, robust=False)
    best = math.inf

    def residuals(parameters):
        return (law(SIZES, *parameters) - losses).ravel()

    for alpha in (0.05, 0.2, 0.5, 1.0, 2.0):
        bounds = ([0, 0, 0.005], [9, 99, 5])
        peer = optimize.least_squares(residuals, (2.0, 1.0, alpha), bounds=bounds, xtol=1e-15, ftol=1e-15)
        best = min(best, 2 * peer.cost)
    ours = sum((fit.predict(n) - losses[:, i]) ** 2 for i, n in enumerate(SIZES)).sum()
    assert ours <= best * (1 + 1e-6)
    assert fit.residual_sd == pytest.approx(math.sqrt(ours / 17))


def test_the_huber_refit_shrugs_off_a_broken_run_that_bends_least_squares():
    rng = np.random.default_rng(0)
    losses = law(SIZES, *LAWS[0]) + rng.normal(0, 0.003, (6, 4))
    clean = fit_power_law(SIZES, losses).predict(8e6)
    losses[0, 3] += 1.0
    robust, plain = fit_power_law(SIZES, losses), fit_power_law(SIZES, losses, robust=False)
    assert robust.robust
    assert abs(robust.predict(8e6) - clean) < 0.02
    assert abs(plain.predict(8e6) - clean) > 0.1


def test_few_runs_are_not_refitted():
    assert not fit_power_law(SIZES, law(SIZES, *LAWS[0])).robust


def test_curves_that_rise_or_bend_the_wrong_way_end_on_a_bound_and_say_so():
    rising = fit_power_law(SIZES, [3.0, 3.1, 3.2, 3.3])
    assert "amplitude" in rising.at_bound
    assert rising.predict(8e6) == pytest.approx(3.15)
    no_floor = fit_power_law(SIZES, [3.0, 2.0, 1.0, 0.1])
    assert "offset" in no_floor.at_bound
    assert no_floor.offset == 0.0
    assert fit_power_law(SIZES, law(SIZES, *LAWS[0])).at_bound == ()


def test_many_fits_at_once_equal_one_by_one():
    rng = np.random.default_rng(1)
    sets = law(SIZES, *LAWS[0]) + rng.normal(0, 0.01, (20, 6, 4))
    for one, row in zip(sets, fit_many(SIZES, sets), strict=True):
        single = fit_power_law(SIZES, one)
        assert (single.offset, single.amplitude, single.alpha) == pytest.approx(tuple(row), rel=1e-9)


def test_one_fit_is_fast():
    losses = law(SIZES, *LAWS[0]) + np.random.default_rng(0).normal(0, 0.003, (6, 4))
    fit_power_law(SIZES, losses)
    start = time.process_time()
    for _ in range(3):
        fit_power_law(SIZES, losses)
    assert (time.process_time() - start) / 3 < 0.2


def test_a_log_linear_fit_equals_polyfit_and_is_biased_beyond_its_range():
    losses = law(SIZES, *LAWS[0])
    line = fit_log_linear(SIZES, losses)
    slope, intercept = np.polyfit(np.log(SIZES), losses, 1)
    assert (line.slope, line.intercept) == pytest.approx((slope, intercept))
    assert line.slope == pytest.approx(-0.339, abs=5e-4)
    assert line.predict(8e6) - law(8e6, *LAWS[0]) == pytest.approx(-0.117, abs=1e-3)


@pytest.mark.parametrize(
    ("sizes", "losses", "message"),
    [
        (SIZES[:2], [3.0, 2.9], "at least 3 sizes"),
        ([1e6, 1e6, 2e6], [3.0, 2.9, 2.8], "all different"),
        ([0, 1e6, 2e6], [3.0, 2.9, 2.8], "positive"),
        (SIZES, [3.0, 2.9, 2.8], r"shape \(4,\) or \(seeds, 4\)"),
        (SIZES, [3.0, 2.9, math.nan, 2.7], "must be finite; got nan"),
        (SIZES, np.zeros((0, 4)), "losses must have shape"),
    ],
)
def test_bad_data_are_errors(sizes, losses, message):
    with pytest.raises(ValueError, match=message):
        fit_power_law(sizes, losses)


def test_a_size_to_predict_at_must_be_positive():
    fit = fit_power_law(SIZES, law(SIZES, *LAWS[0]))
    for bad in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match="positive number of parameters"):
            fit.predict(bad)

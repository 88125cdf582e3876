"""Effect sizes: noncentral-t interval, P(better), BCa bootstrap, against their definitions and peers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from analysis.effect_sizes import bootstrap_interval, d_z, probability_better


def noncentral_t_cdf(t, df, delta):
    """P(Z + delta <= t sqrt(V / df)) by integrating the definition over V; no noncentral t of any library."""
    value, _ = integrate.quad(
        lambda v: stats.norm.cdf(t * math.sqrt(v / df) - delta) * stats.chi2.pdf(v, df),
        0,
        stats.chi2.ppf(1 - 1e-14, df),
        limit=500,
        points=[df],
    )
    return value


def test_the_ends_of_the_interval_meet_the_definition(differences):
    result = d_z(differences, confidence=0.9)
    n = len(differences)
    t = result.d_z * math.sqrt(n)
    assert result.d_z == pytest.approx(differences.mean() / differences.std(ddof=1))
    assert noncentral_t_cdf(t, n - 1, result.low * math.sqrt(n)) == pytest.approx(0.95, abs=1e-6)
    assert noncentral_t_cdf(t, n - 1, result.high * math.sqrt(n)) == pytest.approx(0.05, abs=1e-6)


def test_the_interval_covers_the_truth_at_its_level():
    rng, covered, trials = np.random.default_rng(0), 0, 300
    for _ in range(trials):
        result = d_z(rng.normal(1.0, 1.0, 6), confidence=0.9)
        covered += result.low <= 1.0 <= result.high
    assert abs(covered / trials - 0.9) < 3 * math.sqrt(0.9 * 0.1 / trials)


def test_the_interval_mirrors_with_the_sign(differences):
    one, other = d_z(differences), d_z(-differences)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_nearly_constant_differences_have_a_huge_but_finite_d_z():
    nearly_constant = d_z([0.1, 0.1, 0.1 + 1e-15, 0.1])
    assert 0 < nearly_constant.low < nearly_constant.d_z < nearly_constant.high < math.inf


@pytest.mark.parametrize(("data", "spread"), [([0.0] * 5, "exact null"), ([-0.1] * 5, "constant")])
def test_without_spread_there_is_no_d_z(data, spread):
    result = d_z(data)
    assert (result.d_z, result.low, result.high, result.spread) == (None, None, None, spread)


def test_probability_better_equals_clopper_and_pearson(differences):
    wins, ties, n = int((differences < 0).sum()), int((differences == 0).sum()), len(differences)
    result = probability_better(differences, confidence=0.9)
    assert result.p == pytest.approx((wins + ties / 2) / n)
    assert result.low == pytest.approx(stats.binomtest(wins, n).proportion_ci(0.9, method="exact").low)
    assert result.high == pytest.approx(stats.binomtest(wins + ties, n).proportion_ci(0.9, method="exact").high)


def test_probability_better_at_the_edges():
    """All six won: the lower end is (.025)^(1/6); all tied: nothing is known."""
    won = probability_better([-1.0] * 6)
    assert (won.p, won.high) == (1.0, 1.0)
    assert won.low == pytest.approx(0.025 ** (1 / 6))
    tied = probability_better([0.0] * 6)
    assert (tied.p, tied.low, tied.high, tied.ties) == (0.5, 0.0, 1.0, 6)
    assert probability_better([0.5]).p == 0.0
    with pytest.raises(ValueError, match="0 paired"):
        probability_better([])


def naive_bca(values, resamples, confidence):
    """Efron (1987), equations 2.3 and 6.6, for the mean, from given resamples."""
    drawn, seen = values[resamples].mean(axis=1), values.mean()
    z0 = stats.norm.ppf((np.mean(drawn < seen) + np.mean(drawn <= seen)) / 2)
    jackknife = np.array([np.delete(values, i).mean() for i in range(len(values))])
    gap = jackknife.mean() - jackknife
    a = (gap**3).sum() / (6 * (gap**2).sum() ** 1.5)
    ends = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = z0 + stats.norm.ppf(tail)
        ends.append(np.quantile(drawn, stats.norm.cdf(z0 + z / (1 - a * z))))
    return ends


def test_bootstrap_interval_equals_a_naive_bca(differences):
    n = len(differences)
    if n < 5:
        with pytest.raises(ValueError, match="at least 5 pairs"):
            bootstrap_interval(differences, rng=np.random.default_rng(2))
        return
    resamples = np.random.default_rng(1).integers(0, n, size=(20_000, n))
    ours = bootstrap_interval(differences, rng=np.random.default_rng(2), confidence=0.9, n_resamples=20_000)
    scale = differences.std() / math.sqrt(n)
    assert (ours.low, ours.high) == pytest.approx(tuple(naive_bca(differences, resamples, 0.9)), abs=0.12 * scale)
    assert ours.estimate == pytest.approx(differences.mean())


def test_bootstrap_is_repeatable_and_takes_other_statistics():
    data = np.random.default_rng(3).normal(size=20)
    one = bootstrap_interval(data, rng=np.random.default_rng(4), statistic=np.median, n_resamples=999)
    two = bootstrap_interval(data, rng=np.random.default_rng(4), statistic=np.median, n_resamples=999)
    assert one == two
    assert one.low <= np.median(data) <= one.high


def test_bootstrap_without_spread_is_the_point():
    result = bootstrap_interval([0.2] * 5, rng=np.random.default_rng(0))
    assert (result.estimate, result.low, result.high, result.spread) == (0.2, 0.2, 0.2, "constant")


@pytest.mark.parametrize(
    "measure", [d_z, probability_better, lambda v: bootstrap_interval(v, rng=np.random.default_rng(0))]
)
def test_values_that_are_not_finite_are_errors(measure):
    with pytest.raises(ValueError, match="must be finite"):
        measure([0.1, math.nan, 0.2, 0.1, 0.3])

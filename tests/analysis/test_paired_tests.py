"""Tests of pairs against scipy, statsmodels and brute force on eight data sets, and their edge cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from analysis.paired_tests import equivalence, paired_t, sign_flip, wilcoxon


def brute_force_p(values, alternative):
    """Share of all sign patterns at least as extreme, one by one in rational steps of 1e-9 of the scale."""
    values = np.asarray(values, dtype=float)
    slack = 1e-9 * np.abs(values).sum()
    sums = np.array([np.dot(signs, np.abs(values)) for signs in itertools.product((-1, 1), repeat=len(values))])
    seen = values.sum()
    if alternative == "less":
        return np.mean(sums <= seen + slack)
    if alternative == "greater":
        return np.mean(sums >= seen - slack)
    return np.mean(np.abs(sums) >= abs(seen) - slack)


def test_paired_t_equals_scipy(differences, alternative):
    data = differences
    base = np.linspace(3.0, 4.0, data.size)
    peer = stats.ttest_rel(base + data, base, alternative=alternative)
    ends = peer.confidence_interval(0.98)
    ours = paired_t(data, alternative=alternative, confidence=0.98)
    assert ours.t == pytest.approx(peer.statistic, rel=1e-8)
    assert ours.p == pytest.approx(peer.pvalue, rel=1e-8)
    assert (ours.low, ours.high) == pytest.approx((ends.low, ends.high), rel=1e-8)
    assert (ours.mean, ours.sd) == pytest.approx((data.mean(), data.std(ddof=1)))
    assert ours.spread == "ordinary"


def test_paired_t_by_hand():
    """Differences 1, 2, 3: t = 2 sqrt(3); with two degrees of freedom P(T > t) = (1 - t / sqrt(2 + t^2)) / 2."""
    ours = paired_t([1.0, 2.0, 3.0], alternative="greater")
    assert ours.t == pytest.approx(2 * math.sqrt(3))
    assert ours.p == pytest.approx((1 - ours.t / math.sqrt(2 + ours.t**2)) / 2)


@pytest.mark.parametrize("test", [paired_t, sign_flip, wilcoxon])
def test_an_exact_null_has_p_one_and_says_so(test, alternative):
    result = test([0.0] * 6, alternative=alternative)
    assert result.p == 1.0
    assert result.spread == "exact null"


def test_the_interval_of_an_exact_null_is_the_point_zero():
    result = paired_t([0.0] * 6)
    assert (result.t, result.mean, result.low, result.high) == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(("value", "less", "greater"), [(-0.1, 0.0, 1.0), (0.1, 1.0, 0.0)])
def test_constant_differences_give_the_limit(value, less, greater):
    """.1 six times: numpy's mean of it is not .1, so its standard deviation would not be 0."""
    data = [value] * 6
    assert paired_t(data, alternative="less").p == less
    assert paired_t(data, alternative="greater").p == greater
    both = paired_t(data)
    assert (both.p, both.t, both.low, both.high) == (0.0, math.copysign(math.inf, value), value, value)
    assert both.spread == "constant"
    assert sign_flip(data, alternative="less").p == (2**-6 if value < 0 else 1.0)


@pytest.mark.parametrize("test", [paired_t, sign_flip, wilcoxon])
@pytest.mark.parametrize(
    ("data", "message"),
    [([0.1], "at least 2"), ([], "at least 2"), ([0.1, math.nan], "pair 1 is nan"), ([math.inf, 0.1], "pair 0 is inf")],
)
def test_bad_differences_are_errors(test, data, message):
    with pytest.raises(ValueError, match=message):
        test(data)


@pytest.mark.parametrize("test", [paired_t, sign_flip, wilcoxon])
def test_an_unknown_alternative_lists_the_known_ones(test):
    with pytest.raises(ValueError, match="unknown alternative 'lower'; allowed: two-sided, less, greater"):
        test([0.1, 0.2], alternative="lower")


def test_a_confidence_in_percent_is_an_error():
    with pytest.raises(ValueError, match="strictly between 0 and 1; got 95"):
        paired_t([0.1, 0.2], confidence=95)


def test_sign_flip_equals_brute_force(differences, alternative):
    result = sign_flip(differences, alternative=alternative)
    assert result.p == pytest.approx(brute_force_p(differences, alternative), abs=1e-15)
    assert result.exact


def test_sign_flip_equals_scipy(alternative):
    data = np.random.default_rng(5).exponential(0.05, 12) - 0.02
    peer = stats.permutation_test(
        (data, np.zeros_like(data)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
        alternative=alternative,
    )
    assert sign_flip(data, alternative=alternative).p == pytest.approx(peer.pvalue, abs=1e-12)


def test_sign_flip_bottoms_out_where_the_number_of_pairs_says():
    for n, one_sided, two_sided in [(5, 1 / 32, 0.0625), (6, 1 / 64, 1 / 32), (10, 2**-10, 0.001953125)]:
        data = -np.arange(1.0, n + 1)
        less, both = sign_flip(data, alternative="less"), sign_flip(data)
        assert (less.p, less.smallest_p) == (one_sided, one_sided)
        assert (both.p, both.smallest_p) == (two_sided, two_sided)


def test_sign_flip_is_exact_and_fast_up_to_forty_pairs():
    """All forty differences 1: the sum is 40 - 2 k with binomial weights, so the tail is a binomial tail."""
    data = np.array([1.0] * 30 + [-1.0] * 10)
    result = sign_flip(data, alternative="greater")
    assert result.exact
    assert result.p == pytest.approx(stats.binom.sf(29, 40, 0.5), rel=1e-12)


def test_rounding_does_not_break_ties():
    """.1 + .2 is not .3 in binary; patterns that tie in decimal must count as ties."""
    assert sign_flip([0.1, 0.2, -0.3], alternative="greater").p == brute_force_p([1, 2, -3], "greater") == 5 / 8


def test_beyond_forty_pairs_flips_are_drawn_with_the_generator_given():
    data = np.random.default_rng(0).normal(-0.3, 1.0, 60)
    with pytest.raises(ValueError, match="pass a generator as rng"):
        sign_flip(data)
    drawn = sign_flip(data, alternative="less", rng=np.random.default_rng(1))
    again = sign_flip(data, alternative="less", rng=np.random.default_rng(1))
    assert not drawn.exact
    assert drawn.p == again.p
    assert drawn.p == pytest.approx(paired_t(data, alternative="less").p, abs=0.004)


def test_wilcoxon_equals_scipy_without_ties_and_brute_force_with_them(differences, alternative):
    sizes = np.abs(differences)
    if 0.0 not in sizes and np.unique(sizes).size == sizes.size:
        expected = stats.wilcoxon(differences, alternative=alternative, method="exact").pvalue
    else:
        expected = brute_force_p(np.sign(differences) * stats.rankdata(sizes), alternative)
    assert wilcoxon(differences, alternative=alternative).p == pytest.approx(expected, abs=1e-14)


def test_wilcoxon_keeps_zeros_in_the_ranking():
    """Pratt: the zero takes rank 1, so 3 and -2 have ranks 3 and 2, and the sum of signed ranks is 1."""
    result = wilcoxon([0.0, -2.0, 3.0], alternative="greater")
    assert (result.n, result.statistic, result.p) == (3, 1.0, 0.5)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_equivalence_equals_statsmodels(differences, scale):
    from statsmodels.stats.weightstats import ttost_paired

    data = differences
    margin = scale * float(np.abs(data).mean())
    p, lower, upper = ttost_paired(data, np.zeros_like(data), -margin, margin)
    result = equivalence(data, margin=margin)
    assert result.p == pytest.approx(p, rel=1e-8, abs=1e-14)
    assert (result.p_lower, result.p_upper) == pytest.approx((lower[1], upper[1]), rel=1e-8, abs=1e-14)


def test_equivalence_agrees_with_its_interval(differences):
    data = differences
    for margin in (0.3, 1.0, 3.0):
        result = equivalence(data, margin=margin * float(np.abs(data).max()), alpha=0.05)
        assert result.equivalent == (-result.margin < result.low and result.high < result.margin)


def test_equivalence_at_the_edges():
    assert equivalence([0.0] * 4, margin=0.01).equivalent
    assert not equivalence([0.02] * 4, margin=0.01).equivalent
    for margin in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="margin must be a positive number of nats"):
            equivalence([0.1, 0.2], margin=margin)
    with pytest.raises(ValueError, match=r"alpha must lie strictly between 0 and 0\.5"):
        equivalence([0.1, 0.2], margin=1.0, alpha=0.5)

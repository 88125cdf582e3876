"""Every statistic against an independent computation on seven data sets, and NaN as an error for all of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from analysis import statistical_tests as tests
from analysis.pooled_sequential import worse_e_value

RNG = np.random.default_rng(7)
DATA: dict[str, list[float]] = {
    "two pairs": [-0.02, -0.05],
    "six pairs": [-0.031, -0.012, 0.004, -0.027, -0.019, -0.008],
    "ties": [-0.01, -0.01, 0.01, -0.02, -0.02, 0.03, -0.02],
    "zeros among them": [0.0, -0.01, 0.0, -0.03, 0.02, -0.04],
    "one outlier seed": [-0.02, -0.025, -0.018, -0.022, 0.9, -0.021],
    "ten pairs": list(RNG.normal(-0.02, 0.015, 10)),
    "fifteen pairs, heavy tails": list(RNG.standard_t(2, 15) * 0.01),
}
FLAT: dict[str, list[float]] = {"exact null": [0.0] * 6, "constant": [-0.01] * 6}
every_set = pytest.mark.parametrize("name", DATA)


@every_set
def test_paired_t_and_its_interval(name: str) -> None:
    values = np.array(DATA[name])
    ours = tests.paired_t(values, confidence=0.9)
    theirs = stats.ttest_1samp(values, 0.0)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (ours.low, ours.high) == pytest.approx(DescrStatsW(values).tconfint_mean(alpha=0.1), rel=1e-9)


@every_set
@pytest.mark.parametrize("alternative", ["less", "two-sided"])
def test_sign_flip_and_wilcoxon_by_listing_every_pattern(name: str, alternative: str) -> None:
    values = np.array(DATA[name])
    ranks = np.sign(values) * stats.rankdata(np.abs(values))
    for statistic, function in ((values, tests.sign_flip), (ranks, tests.wilcoxon)):
        patterns = np.array(list(itertools.product((-1, 1), repeat=values.size)))
        sums, seen = patterns @ np.abs(statistic), statistic.sum()
        slack = 1e-12 * np.abs(statistic).sum()
        p = (sums <= seen + slack).mean() if alternative == "less" else (np.abs(sums) >= abs(seen) - slack).mean()
        assert function(values, alternative=alternative).p == pytest.approx(p, rel=1e-12)


@every_set
def test_equivalence_is_the_worse_of_two_shifted_t_tests(name: str) -> None:
    values = np.array(DATA[name])
    found = tests.equivalence(values, margin=0.03)
    low = stats.ttest_1samp(values, -0.03, alternative="greater").pvalue
    high = stats.ttest_1samp(values, 0.03, alternative="less").pvalue
    assert found.p == pytest.approx(max(low, high), rel=1e-9)


@every_set
def test_d_z_interval_puts_the_t_seen_at_its_tails(name: str) -> None:
    values = np.array(DATA[name])
    found, t = tests.d_z(values, confidence=0.9), stats.ttest_1samp(values, 0.0).statistic
    assert found.low is not None
    assert found.high is not None
    root, df = math.sqrt(values.size), values.size - 1
    assert stats.nct.sf(t, df, root * found.low) == pytest.approx(0.05, abs=1e-5)
    assert stats.nct.cdf(t, df, root * found.high) == pytest.approx(0.05, abs=1e-5)


@pytest.mark.parametrize("name", [name for name in DATA if len(DATA[name]) >= 5])
def test_bca_bootstrap_is_near_scipys(name: str) -> None:
    values = np.array(DATA[name])
    ours = tests.bootstrap_interval(values, rng=np.random.default_rng(0), n_resamples=20_000, confidence=0.9)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", confidence_level=0.9, rng=np.random.default_rng(1)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)


@pytest.mark.parametrize("name", [*DATA, *FLAT])
def test_probability_better_counts_wins_and_half_the_ties(name: str) -> None:
    values = np.array((DATA | FLAT)[name])
    expected = ((values < 0).sum() + 0.5 * (values == 0).sum()) / values.size
    assert tests.probability_better(values).p == pytest.approx(expected)


@pytest.mark.parametrize("sizes", [(1,), (2, 3), (3, 1, 4), (5, 5), (2, 2, 2)])
def test_corrections_equal_statsmodels_with_ties(sizes: tuple[int, ...]) -> None:
    p = np.repeat(np.random.default_rng(sum(sizes)).uniform(0, 0.1, len(sizes)), sizes)
    assert tests.holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert tests.benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1])


@every_set
def test_the_pooled_e_value_is_its_integral(name: str) -> None:
    from scipy.integrate import quad

    values = np.array(DATA[name])
    sd, prior = 0.02, 1.5
    x, n = values.sum() / sd, values.size
    integral, _ = quad(lambda e: 2 * stats.norm.pdf(e, 0, prior) * math.exp(e * x - n * e**2 / 2), 0, 30, limit=200)
    assert worse_e_value(values, sd=sd, prior_sd=prior) == pytest.approx(integral, rel=1e-6)


@pytest.mark.parametrize("name", FLAT)
def test_without_spread_nothing_is_nan(name: str) -> None:
    values = FLAT[name]
    found = (tests.paired_t(values).p, tests.sign_flip(values).p, tests.wilcoxon(values).p)
    assert all(math.isfinite(p) and 0 <= p <= 1 for p in found)
    assert tests.d_z(values).d_z is None
    assert math.isfinite(tests.sequential_t(values).e_values[-1])


_CALLS: dict[str, Callable[[Any], Any]] = {
    "paired_t": tests.paired_t,
    "sign_flip": tests.sign_flip,
    "wilcoxon": tests.wilcoxon,
    "d_z": tests.d_z,
    "probability_better": tests.probability_better,
    "bootstrap_interval": lambda values: tests.bootstrap_interval(values, rng=np.random.default_rng(0)),
    "equivalence": lambda values: tests.equivalence(values, margin=0.01),
    "sequential_t": tests.sequential_t,
    "sequential_sign": tests.sequential_sign,
    "worse_e_value": lambda values: worse_e_value(values, sd=0.1),
    "holm": tests.holm,
    "benjamini_hochberg": tests.benjamini_hochberg,
}


@pytest.mark.parametrize("call", _CALLS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_an_error_and_never_dropped(call: str, bad: float) -> None:
    with pytest.raises(ValueError, match=r"finite|\[0, 1\]"):
        _CALLS[call]([0.1, 0.2, bad, 0.3, 0.1, 0.2])

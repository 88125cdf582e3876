"""The noncentral t, where scipy is right and where it is not."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from analysis.noncentral_t import noncentral_t_cdf, noncentral_t_sf, noncentrality


@pytest.mark.parametrize(("t", "df", "delta"), [(0.5, 5, 0.0), (2.0, 9, 1.5), (-1.0, 3, 2.0), (30.0, 4, 25.0)])
def test_equals_scipy_where_scipy_is_defined(t, df, delta):
    assert noncentral_t_cdf(t, df, delta) == pytest.approx(stats.nct.cdf(t, df, delta))
    assert noncentral_t_cdf(t, df, delta) + noncentral_t_sf(t, df, delta) == pytest.approx(1.0)


def test_no_tail_is_nan():
    """scipy 1.17 gives NaN at several of these points; each lies so far out that the answer is 0 or 1."""
    for df in (1, 2, 5, 29):
        for t in (-1e4, -300.0, -12.7062, -0.1):
            for delta in (9.0, 11.3, 30.0, 133.0, 1_500.0):
                assert noncentral_t_cdf(t, df, delta) == pytest.approx(0.0, abs=1e-14)
                assert noncentral_t_sf(-t, df, -delta) == pytest.approx(0.0, abs=1e-14)


def test_noncentrality_inverts_the_distribution_function():
    for df in (1, 5, 29):
        for t in (-50.0, -1.0, 0.0, 2.5, 400.0):
            for probability in (0.005, 0.5, 0.995):
                delta = noncentrality(t, df, probability)
                assert noncentral_t_cdf(t, df, delta) == pytest.approx(probability, abs=1e-7)


def test_the_limit_for_huge_t_joins_the_exact_inversion():
    for probability in (0.025, 0.5, 0.975):
        for sign in (1, -1):
            exact = noncentrality(sign * 9_999.0, 5, probability) / 9_999.0
            limit = noncentrality(sign * 10_001.0, 5, probability) / 10_001.0
            assert exact == pytest.approx(limit, rel=1e-6)
    assert math.isfinite(noncentrality(1e300, 5, 0.975))

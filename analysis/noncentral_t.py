"""The noncentral t distribution, where scipy's needs help.

scipy returns NaN from `nct.cdf` in some far tails (probability below about 1e-15) although its
survival function is fine there, and loses its digits for statistics above 1e4. Both are mended here,
once, for power and for the interval of d_z.
"""

from __future__ import annotations

import math

_LARGE_T = 1e4
"""Above this |t| the normal part of T = (Z + delta) / sqrt(V / df) no longer matters in `noncentrality`."""


def noncentral_t_cdf(t: float, df: int, delta: float) -> float:
    """P(T <= t) for T = (Z + delta) / sqrt(V / df), Z standard normal, V chi-squared with df degrees of freedom."""
    from scipy.stats import nct

    below = float(nct.cdf(t, df, delta))
    return 1.0 - float(nct.sf(t, df, delta)) if math.isnan(below) else min(1.0, max(0.0, below))


def noncentral_t_sf(t: float, df: int, delta: float) -> float:
    """P(T > t) for T = (Z + delta) / sqrt(V / df), precise where it is small."""
    from scipy.stats import nct

    above = float(nct.sf(t, df, delta))
    return 1.0 - float(nct.cdf(t, df, delta)) if math.isnan(above) else min(1.0, max(0.0, above))


def noncentrality(t: float, df: int, probability: float) -> float:
    """The delta for which a noncentral t (df, delta) lies at or below `t` with the given probability.

    It falls as `probability` rises. For |t| above 1e4 it is a quantile of t sqrt(V / df).
    """
    from scipy.optimize import brentq
    from scipy.stats import chi2

    if abs(t) > _LARGE_T:
        share = 1 - probability if t > 0 else probability
        return t * math.sqrt(float(chi2.ppf(share, df)) / df)

    def excess(delta: float) -> float:
        return noncentral_t_cdf(t, df, delta) - probability

    step = 1.0 + abs(t)
    low, high = t - step, t + step
    while excess(low) < 0:
        low -= step
        step *= 2
    step = 1.0 + abs(t)
    while excess(high) > 0:
        high += step
        step *= 2
    return float(brentq(excess, low, high, xtol=1e-10))

"""Power of the paired t test: how many seeds, and what a number of seeds can see.

Power is computed from the noncentral t distribution, not from the normal approximation, which
promises too much below twenty pairs. Effects are d_z: mean over standard deviation of differences.
"""

from __future__ import annotations

import math

from analysis.differences import checked_alternative, checked_share
from analysis.noncentral_t import noncentral_t_cdf, noncentral_t_sf

MOST_PAIRS = 1_000_000
"""Where `pairs_needed` stops looking."""


def paired_power(effect: float, n_pairs: int, *, alpha: float = 0.05, alternative: str = "two-sided") -> float:
    """Probability that a paired t test of `n_pairs` finds an effect.

    P(T > t_q) for T noncentral t with n - 1 degrees of freedom and noncentrality sqrt(n) d_z; two-sided adds
    the other tail. Assumes normal differences. Source: Cohen (1988). Equals statsmodels' TTestPower.

    Args:
        effect: true d_z, signed: negative is better. "less" looks for negative effects, "greater" for positive ones.
        n_pairs: pairs, at least two.
        alpha: level of the test.
        alternative: "two-sided", "less" or "greater".

    Raises:
        ValueError: fewer than two pairs, an effect that is not finite, a level outside (0, 1), an unknown alternative.
    """
    side = checked_alternative(alternative)
    checked_share("alpha", alpha)
    if n_pairs < 2:
        raise ValueError(f"a paired t test needs at least 2 pairs; got {n_pairs}")
    if not math.isfinite(effect):
        raise ValueError(f"effect must be finite; got {effect!r}")
    from scipy.special import stdtrit

    toward = {"less": -effect, "greater": effect, "two-sided": abs(effect)}[side] * math.sqrt(n_pairs)
    df = n_pairs - 1
    cut = float(stdtrit(df, 1 - (alpha / 2 if side == "two-sided" else alpha)))
    if abs(toward) > 1e3 + 10 * abs(cut):
        return 1.0 if toward > 0 else 0.0
    found = noncentral_t_sf(cut, df, toward)
    if side == "two-sided":
        found += noncentral_t_cdf(-cut, df, toward)
    return min(1.0, found)


def pairs_needed(
    effect: float, *, power: float = 0.8, alpha: float = 0.05, alternative: str = "two-sided"
) -> int | None:
    """Fewest pairs with which a paired t test finds `effect` with at least `power`.

    Args:
        effect: true d_z, signed as in `paired_power`.
        power: probability of finding it.
        alpha: level of the test.
        alternative: "two-sided", "less" or "greater".

    Returns:
        The number of pairs, or None when even `MOST_PAIRS` do not suffice (an effect of 0, or of the wrong sign).

    Raises:
        ValueError: as `paired_power`, or a power outside (0, 1).
    """
    checked_share("power", power)

    def enough(n: int) -> bool:
        return paired_power(effect, n, alpha=alpha, alternative=alternative) >= power

    low, high = 1, 2
    while not enough(high):
        low, high = high, high * 2
        if high > MOST_PAIRS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def least_detectable_effect(
    n_pairs: int, *, power: float = 0.8, alpha: float = 0.05, alternative: str = "two-sided"
) -> float:
    """Smallest |d_z| that `n_pairs` find with the given power, to 1e-10.

    Multiply it by the standard deviation of the differences to have it in nats.

    Raises:
        ValueError: as `paired_power`, a power outside (0, 1), or a power not above alpha (any effect has that).
    """
    checked_share("power", power)
    if power <= alpha:
        raise ValueError(f"power must be above alpha; got power {power!r} and alpha {alpha!r}")
    sign = -1.0 if checked_alternative(alternative) == "less" else 1.0
    from scipy.optimize import brentq

    def shortfall(effect: float) -> float:
        return paired_power(sign * effect, n_pairs, alpha=alpha, alternative=alternative) - power

    high = 1.0
    while shortfall(high) < 0:
        high *= 2
    return float(brentq(shortfall, 0.0, high, xtol=1e-10))

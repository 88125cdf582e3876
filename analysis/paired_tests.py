"""Tests of paired differences: t, sign flips, Wilcoxon, equivalence.

Every function takes the differences (candidate minus reference, one per seed; negative is
better) and returns a frozen result. Choices:

- The permutation tests are exact up to 40 pairs: sign-flip sums are counted by meeting in the
  middle (two halves of at most 2^20 sums, one sorted), not drawn at random. Beyond that they
  need a generator and use random flips with the add-one rule.
- Wilcoxon keeps zeros (Pratt's ranks) and ties (mid-ranks) and stays exact, because the null
  distribution of signed ranks is itself a sign-flip distribution.
- Differences without spread give defined answers and say so in `spread`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.differences import (
    CONSTANT,
    EXACT_NULL,
    ORDINARY,
    Alternative,
    FloatArray,
    Spread,
    checked_alternative,
    checked_differences,
    checked_share,
    spread_of,
)

EXACT_LIMIT = 40
"""Most pairs for which sign flips are counted exactly (2^20 sums a half, about .3 s)."""

_ROUNDING = 1e-12
"""Sums closer than this share of the sum of |d| count as tied; far above rounding, far below any real gap."""


@dataclass(frozen=True, kw_only=True)
class PairedTTest:
    """Result of `paired_t`.

    Attributes:
        n: pairs.
        mean: mean difference, nats.
        sd: sample standard deviation of the differences (n - 1).
        t: statistic; 0 for an exact null, plus or minus infinity for constant differences.
        p: p-value under `alternative`.
        low, high: confidence interval of the mean; an end is infinite on the open side of a one-sided test.
        confidence: level of the interval.
        alternative: the alternative tested.
        spread: "ordinary", or which shape without spread the differences have.
    """

    n: int
    mean: float
    sd: float
    t: float
    p: float
    low: float
    high: float
    confidence: float
    alternative: Alternative
    spread: Spread


def paired_t(differences: ArrayLike, *, alternative: str = "two-sided", confidence: float = 0.95) -> PairedTTest:
    """Student's paired t test and interval.

    t = mean / (sd / sqrt(n)) with n - 1 degrees of freedom; interval mean -+ t_q sd / sqrt(n).
    Assumes pairs independent and the mean difference near normal. Source: Student (1908).
    Without spread t is undefined: an exact null (all differences 0) gives t = 0 and p = 1, constant
    differences give the limit (t infinite, p = 0 on the side of the mean, 1 on the other); the
    interval is then the point itself.

    Args:
        differences: candidate minus reference, shape (n,).
        alternative: "two-sided", "less" (the candidate's loss is lower) or "greater".
        confidence: level of the interval, one-sided where the alternative is.

    Raises:
        ValueError: fewer than two pairs, a value that is not finite, an unknown alternative, a level outside (0, 1).
    """
    values = checked_differences(differences)
    side = checked_alternative(alternative)
    level = checked_share("confidence", confidence)
    from scipy.special import stdtr, stdtrit

    n = values.size
    spread = spread_of(values)
    mean = float(values.mean()) if spread == ORDINARY else float(values[0])
    sd = float(values.std(ddof=1)) if spread == ORDINARY else 0.0
    error = sd / math.sqrt(n)
    if spread == EXACT_NULL:
        t, p = 0.0, 1.0
    else:
        t = math.copysign(math.inf, mean) if spread == CONSTANT or error == 0.0 else mean / error
        below = float(stdtr(n - 1, t)) if math.isfinite(t) else float(t > 0)
        above = float(stdtr(n - 1, -t)) if math.isfinite(t) else float(t < 0)
        p = {"less": below, "greater": above, "two-sided": min(1.0, 2.0 * min(below, above))}[side]
    reach = error * float(stdtrit(n - 1, 0.5 + level / 2 if side == "two-sided" else level))
    return PairedTTest(
        n=n,
        mean=mean,
        sd=sd,
        t=t,
        p=p,
        low=-math.inf if side == "less" else mean - reach,
        high=math.inf if side == "greater" else mean + reach,
        confidence=level,
        alternative=side,
        spread=spread,
    )


@dataclass(frozen=True, kw_only=True)
class SignTestResult:
    """Result of `sign_flip` or `wilcoxon`.

    Attributes:
        n: pairs.
        statistic: mean difference (sign flip), or sum of signed ranks (Wilcoxon).
        p: p-value under `alternative`.
        smallest_p: least p-value that n pairs can attain under `alternative`, whatever the data.
        exact: counted over all flips; False when drawn at random.
        alternative: the alternative tested.
        spread: "ordinary", or which shape without spread the differences have.
    """

    n: int
    statistic: float
    p: float
    smallest_p: float
    exact: bool
    alternative: Alternative
    spread: Spread


def sign_flip(
    differences: ArrayLike,
    *,
    alternative: str = "two-sided",
    rng: np.random.Generator | None = None,
    n_resamples: int = 100_000,
) -> SignTestResult:
    """Exact sign-flip permutation test of the mean difference.

    p = share of the 2^n sign patterns whose sum is at least as extreme as the one seen (ties count).
    Assumes only that a difference is symmetric about zero under the null. Source: Fisher (1935), section 21.
    It cannot go below 2^-n one-sided, 2^(1-n) two-sided: six pairs end at 1/64. An exact null gives p = 1.

    Args:
        differences: candidate minus reference, shape (n,).
        alternative: "two-sided", "less" or "greater".
        rng: needed above `EXACT_LIMIT` pairs only, where flips are drawn at random.
        n_resamples: random flips drawn above `EXACT_LIMIT`; p = (hits + 1) / (n_resamples + 1).

    Raises:
        ValueError: fewer than two pairs, a value that is not finite, an unknown alternative, or more pairs than
            can be counted and no generator.
    """
    values = checked_differences(differences)
    p, exact = _flip_p(values, checked_alternative(alternative), rng, n_resamples)
    return SignTestResult(
        n=values.size,
        statistic=float(values.mean()),
        p=p,
        smallest_p=_smallest_p(values.size, alternative),
        exact=exact,
        alternative=checked_alternative(alternative),
        spread=spread_of(values),
    )


def wilcoxon(
    differences: ArrayLike,
    *,
    alternative: str = "two-sided",
    rng: np.random.Generator | None = None,
    n_resamples: int = 100_000,
) -> SignTestResult:
    """Exact Wilcoxon signed-rank test, also with ties and zeros.

    Ranks of |d| (mid-ranks for ties) take the sign of d; zeros are ranked and then count nothing
    (Pratt 1959), so no pair is dropped. p is counted over all sign patterns of these ranks. Assumes
    differences symmetric about zero under the null. Source: Wilcoxon (1945). Without ties and zeros this
    equals `scipy.stats.wilcoxon(method="exact")`.

    Args:
        differences: candidate minus reference, shape (n,).
        alternative: "two-sided", "less" or "greater".
        rng, n_resamples: as in `sign_flip`, above `EXACT_LIMIT` pairs.

    Raises:
        ValueError: as `sign_flip`.
    """
    values = checked_differences(differences)
    from scipy.stats import rankdata

    signed = np.sign(values) * rankdata(np.abs(values))
    p, exact = _flip_p(signed, checked_alternative(alternative), rng, n_resamples)
    return SignTestResult(
        n=values.size,
        statistic=float(signed.sum()),
        p=p,
        smallest_p=_smallest_p(values.size, alternative),
        exact=exact,
        alternative=checked_alternative(alternative),
        spread=spread_of(values),
    )


def _smallest_p(n: int, alternative: str) -> float:
    return min(1.0, 2.0 ** (1 - n if alternative == "two-sided" else -n))


def _flip_sums(values: FloatArray) -> FloatArray:
    """All 2^n sums of +-values, shape (2^n,)."""
    sums = np.zeros(1)
    for value in np.abs(values):
        sums = np.concatenate([sums - value, sums + value])
    return sums


def _flip_p(
    values: FloatArray, alternative: Alternative, rng: np.random.Generator | None, n_resamples: int
) -> tuple[float, bool]:
    """p-value of the sum under random signs, and whether it was counted exactly."""
    n, observed = values.size, float(values.sum())
    slack = _ROUNDING * float(np.abs(values).sum())
    # The flip distribution is symmetric about 0, so both tails are the lower tail of a negative bound.
    bound = {"less": observed, "greater": -observed, "two-sided": -abs(observed)}[alternative] + slack
    tails = 2.0 if alternative == "two-sided" else 1.0
    if n <= EXACT_LIMIT:
        left, right = _flip_sums(values[: n // 2]), np.sort(_flip_sums(values[n // 2 :]))
        hits = int(np.searchsorted(right, np.sort(bound - left), side="right").sum())
        return min(1.0, tails * hits / 2.0**n), True
    if rng is None:
        raise ValueError(
            f"{n} pairs are more than the {EXACT_LIMIT} that can be counted exactly: pass a generator as rng"
        )
    hits = 0
    for start in range(0, n_resamples, 10_000):
        rows = min(10_000, n_resamples - start)
        hits += int(((rng.integers(0, 2, size=(rows, n)) * 2 - 1) @ values <= bound).sum())
    return min(1.0, tails * (hits + 1) / (n_resamples + 1)), False


@dataclass(frozen=True, kw_only=True)
class EquivalenceTest:
    """Result of `equivalence`.

    Attributes:
        n: pairs.
        mean: mean difference, nats.
        margin: the equivalence margin, nats.
        p: larger of the two one-sided p-values.
        p_lower, p_upper: p-values against a mean at or below -margin, at or above +margin.
        low, high: interval of the mean at confidence 1 - 2 alpha; inside the margin exactly when p < alpha.
        alpha: level.
        equivalent: p < alpha.
        spread: "ordinary", or which shape without spread the differences have.
    """

    n: int
    mean: float
    margin: float
    p: float
    p_lower: float
    p_upper: float
    low: float
    high: float
    alpha: float
    equivalent: bool
    spread: Spread


def equivalence(differences: ArrayLike, *, margin: float, alpha: float = 0.05) -> EquivalenceTest:
    """Two one-sided t tests (TOST): is the mean difference within +-margin?

    p = max(P(mean <= -margin), P(mean >= margin)), each a one-sided paired t test on shifted differences;
    assumptions as `paired_t`. Source: Schuirmann (1987). An exact null is equivalent with p = 0.

    Args:
        differences: candidate minus reference, shape (n,).
        margin: largest difference that counts as nothing, nats, above zero.
        alpha: level of each one-sided test.

    Raises:
        ValueError: a margin that is not positive, alpha outside (0, 0.5), or as `paired_t`.
    """
    values = checked_differences(differences)
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"alpha must lie strictly between 0 and 0.5; got {alpha!r}")
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"margin must be a positive number of nats; got {margin!r}")
    p_lower = paired_t(values + margin, alternative="greater").p
    p_upper = paired_t(values - margin, alternative="less").p
    interval = paired_t(values, confidence=1 - 2 * alpha)
    p = max(p_lower, p_upper)
    return EquivalenceTest(
        n=values.size,
        mean=interval.mean,
        margin=margin,
        p=p,
        p_lower=p_lower,
        p_upper=p_upper,
        low=interval.low,
        high=interval.high,
        alpha=alpha,
        equivalent=p < alpha,
        spread=interval.spread,
    )

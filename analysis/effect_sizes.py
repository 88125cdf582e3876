"""Effect sizes of paired differences, each with its interval.

d_z is the mean difference in units of its own standard deviation: how clearly pairs agree, not
how large the gain is in nats. Its interval inverts the noncentral t distribution; the bootstrap
was too narrow for it at ten pairs. P(better) asks the question a reader has: retrained once
more, would the candidate beat the reference?
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.differences import ORDINARY, Spread, checked_differences, checked_share, spread_of
from analysis.noncentral_t import noncentrality
from analysis.paired_tests import paired_t

LEAST_BOOTSTRAP = 5
"""Fewest pairs that are resampled; four pairs have 35 distinct resamples."""


@dataclass(frozen=True, kw_only=True)
class StandardizedEffect:
    """Result of `d_z`.

    Attributes:
        n: pairs.
        d_z: mean over standard deviation of the differences; None when they have no spread.
        low, high: interval; None when d_z is.
        confidence: level of the interval.
        spread: "ordinary", or which shape without spread the differences have.
    """

    n: int
    d_z: float | None
    low: float | None
    high: float | None
    confidence: float
    spread: Spread


def d_z(differences: ArrayLike, *, confidence: float = 0.95) -> StandardizedEffect:
    """Standardised mean difference of pairs, d_z = mean / sd, with a noncentral-t interval.

    sqrt(n) d_z is the t statistic and follows a noncentral t with n - 1 degrees of freedom and
    noncentrality sqrt(n) delta. The ends are the delta at which the t seen is the upper and the lower
    (1 - confidence) / 2 quantile. Assumes differences independent and normal; d_z itself is biased away from
    zero at small n. Source: Cohen (1988); Steiger and Fouladi (1997); Cumming and Finch (2001).

    Args:
        differences: candidate minus reference, shape (n,).
        confidence: level of the two-sided interval.

    Raises:
        ValueError: fewer than two pairs, a value that is not finite, or a level outside (0, 1).
    """
    values = checked_differences(differences)
    level = checked_share("confidence", confidence)
    spread = spread_of(values)
    test = paired_t(values)
    if spread != ORDINARY or not math.isfinite(test.t):
        return StandardizedEffect(n=test.n, d_z=None, low=None, high=None, confidence=level, spread=spread)
    root = math.sqrt(test.n)
    tail = (1 - level) / 2
    return StandardizedEffect(
        n=test.n,
        d_z=test.t / root,
        low=noncentrality(test.t, test.n - 1, 1 - tail) / root,
        high=noncentrality(test.t, test.n - 1, tail) / root,
        confidence=level,
        spread=spread,
    )


@dataclass(frozen=True, kw_only=True)
class ProbabilityBetter:
    """Result of `probability_better`.

    Attributes:
        n: pairs.
        wins, ties: pairs in which the candidate's loss is lower, equal.
        p: (wins + ties / 2) / n.
        low, high: interval.
        confidence: level of the interval.
    """

    n: int
    wins: int
    ties: int
    p: float
    low: float
    high: float
    confidence: float


def probability_better(differences: ArrayLike, *, confidence: float = 0.95) -> ProbabilityBetter:
    """P(A > B): probability that the candidate has the lower loss in a fresh pair.

    The share of pairs won, ties half. The interval is exact (Clopper and Pearson 1934); its lower end
    counts ties as lost and its upper end as won, so ties can only widen it. Assumes pairs independent.
    Source: Bouthillier et al. (2021), who call a gain meaningful when the estimate is above .75 and the
    lower end above .5.

    Args:
        differences: candidate minus reference, shape (n,), negative is better.
        confidence: level of the two-sided interval.

    Raises:
        ValueError: no pair, a value that is not finite, or a level outside (0, 1).
    """
    values = checked_differences(differences, minimum=1)
    level = checked_share("confidence", confidence)
    from scipy.special import betaincinv

    n = values.size
    wins, ties = int((values < 0).sum()), int((values == 0).sum())
    tail = (1 - level) / 2
    not_lost = wins + ties
    return ProbabilityBetter(
        n=n,
        wins=wins,
        ties=ties,
        p=(wins + ties / 2) / n,
        low=float(betaincinv(wins, n - wins + 1, tail)) if wins else 0.0,
        high=float(betaincinv(not_lost + 1, n - not_lost, 1 - tail)) if not_lost < n else 1.0,
        confidence=level,
    )


@dataclass(frozen=True, kw_only=True)
class BootstrapInterval:
    """Result of `bootstrap_interval`.

    Attributes:
        n: pairs.
        estimate: the statistic on the data.
        low, high: BCa interval; both the estimate when the differences have no spread.
        confidence: level of the interval.
        n_resamples: bootstrap resamples drawn.
        spread: "ordinary", or which shape without spread the differences have.
    """

    n: int
    estimate: float
    low: float
    high: float
    confidence: float
    n_resamples: int
    spread: Spread


def bootstrap_interval(
    differences: ArrayLike,
    *,
    rng: np.random.Generator,
    statistic: Callable[..., object] = np.mean,
    confidence: float = 0.95,
    n_resamples: int = 9_999,
) -> BootstrapInterval:
    """BCa bootstrap interval of a statistic of the differences.

    Percentiles of the statistic over resamples of whole pairs, corrected for bias (z0) and for skew by the
    jackknife (a). Assumes pairs independent; too narrow below about ten pairs. Source: Efron (1987).

    Args:
        differences: candidate minus reference, shape (n,).
        rng: the generator that draws the resamples.
        statistic: takes an array and `axis`, as `numpy.mean` and `numpy.median` do.
        confidence: level of the two-sided interval.
        n_resamples: resamples to draw.

    Raises:
        ValueError: fewer than five pairs, a value that is not finite, a level outside (0, 1), or resamples on which
            the correction is not defined (a statistic that hardly varies).
    """
    values = checked_differences(differences)
    if values.size < LEAST_BOOTSTRAP:
        raise ValueError(f"a bootstrap needs at least {LEAST_BOOTSTRAP} pairs; got {values.size}")
    level = checked_share("confidence", confidence)
    spread = spread_of(values)
    estimate = float(np.asarray(statistic(values, axis=0), dtype=np.float64))
    low = high = estimate
    if spread == ORDINARY:
        from scipy.stats import bootstrap

        drawn = bootstrap(
            (values,), statistic, method="BCa", rng=rng, n_resamples=n_resamples, confidence_level=level, axis=0
        )
        low, high = (float(end) for end in drawn.confidence_interval)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"the BCa correction is not defined for this statistic on {values.size} pairs")
    return BootstrapInterval(
        n=values.size,
        estimate=estimate,
        low=low,
        high=high,
        confidence=level,
        n_resamples=n_resamples,
        spread=spread,
    )

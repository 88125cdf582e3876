"""Always-valid tests of paired differences: look after every seed, stop when you like.

An ordinary p-value is spoiled by looking twice. An e-process is not: it is a wealth that starts
at 1 and cannot be expected to grow under the null, so the chance that it ever reaches 1 / alpha is
at most alpha (Ville 1939). Choices: `sequential_t` mixes over a normal prior on d_z, which gives closed
forms for the e-process and its confidence sequence with unknown variance; `sequential_sign` bets on
signs only and needs no normality.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.differences import checked_differences, checked_share


@dataclass(frozen=True, kw_only=True)
class SequentialTest:
    """State of an always-valid test after each pair; position i is what was known after pair i + 1.

    Attributes:
        n: pairs seen.
        e_values: the wealth against the null; 1 is no evidence.
        p_values: running 1 / max wealth, at most 1; valid whenever one stops.
        low, high: confidence sequence of the mean difference, nats, or of P(better) for signs; it holds the truth at
            all positions at once with the confidence. Infinite where nothing is known yet (never for signs).
        alpha: level.
        decided_at: pairs after which the wealth first reached 1 / alpha; None when it has not.
    """

    n: int
    e_values: tuple[float, ...]
    p_values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    alpha: float
    decided_at: int | None


def sequential_t(differences: ArrayLike, *, alpha: float = 0.01, prior_sd: float = 1.0) -> SequentialTest:
    """Normal-mixture e-process and confidence sequence for the mean difference, variance unknown.

    With t the t statistic of the first n pairs, nu = n - 1 and R = 1 + n prior_sd^2:
        E_n = R^(-1/2) ((1 + t^2 / nu) / (1 + t^2 / (nu R)))^(n / 2),
    the likelihood ratio of t mixed over d_z ~ N(0, prior_sd^2) against d_z = 0. It does not depend on the unknown
    variance and is a martingale under the null. The confidence sequence holds the means m for which E_n of the
    differences minus m is below 1 / alpha:
        mean -+ (sd / sqrt(n)) sqrt(nu (K - 1) / (1 - K / R)),  K = (sqrt(R) / alpha)^(2 / n),
    the whole line while K >= R. Two-sided: to promote, ask that `high` lies below zero. Assumes differences
    independent and normal with one mean and variance. Sources: Rouder et al. (2009) for the closed form; Lai
    (1976) and Wang and Ramdas (2025) for validity at every stopping time.

    An exact null so far gives E = 1; constant differences give the finite limit R^((n - 1) / 2).

    Args:
        differences: candidate minus reference in the order measured, shape (n,).
        alpha: level.
        prior_sd: spread of d_z under the mixture; the test is most sensitive to effects of about this size.

    Raises:
        ValueError: no pair, a value that is not finite, alpha outside (0, 1), or a prior_sd that is not positive.
    """
    values = checked_differences(differences, minimum=1)
    checked_share("alpha", alpha)
    if not (math.isfinite(prior_sd) and prior_sd > 0):
        raise ValueError(f"prior_sd must be a positive number; got {prior_sd!r}")
    e_values, low, high = [1.0], [-math.inf], [math.inf]
    for n in range(2, values.size + 1):
        first = values[:n]
        flat = float(np.ptp(first)) == 0.0
        mean = float(first[0]) if flat else float(first.mean())
        error = 0.0 if flat else float(first.std(ddof=1)) / math.sqrt(n)
        ratio = 1.0 + n * prior_sd**2
        e_values.append(_mixture_e_value(mean, error, n, ratio))
        critical = math.exp((math.log(ratio) / 2 - math.log(alpha)) * 2 / n)
        reach = math.inf
        if critical < ratio:
            reach = error * math.sqrt((n - 1) * (critical - 1) / (1 - critical / ratio))
        low.append(mean - reach)
        high.append(mean + reach)
    return _sequence(e_values, low, high, alpha)


def _mixture_e_value(mean: float, error: float, n: int, ratio: float) -> float:
    if mean == 0.0 and error == 0.0:
        return 1.0
    square = math.inf if error == 0.0 else (mean / error) ** 2 / (n - 1)
    log_growth = math.log1p(square) - math.log1p(square / ratio) if math.isfinite(square) else math.log(ratio)
    return math.exp(min(700.0, n / 2 * log_growth - math.log(ratio) / 2))


def sequential_sign(differences: ArrayLike, *, alpha: float = 0.01) -> SequentialTest:
    """Sign e-process: is the candidate better more often than worse?

    With k pairs won of n that are not tied, betting uniformly over win rates p in (1/2, 1):
        E_n = 2^(n + 1) integral from 1/2 to 1 of p^k (1 - p)^(n - k) dp,
    one-sided against P(better) <= P(worse); ties change nothing. It needs neither symmetry nor normality; nine straight
    wins reach 100. The confidence sequence is for the win rate among untied pairs, from the uniform mixture:
    the p with p^k (1 - p)^(n - k) > alpha B(k + 1, n - k + 1). Sources: Ville (1939); Robbins (1970); Ramdas
    et al. (2023).

    Args:
        differences: candidate minus reference in the order measured, shape (n,), negative is better.
        alpha: level.

    Raises:
        ValueError: no pair, a value that is not finite, or alpha outside (0, 1).
    """
    values = checked_differences(differences, minimum=1)
    checked_share("alpha", alpha)
    from scipy.special import betaincc, betaln

    wins = losses = 0
    e_values, low, high = [], [], []
    for value in values:
        wins, losses = wins + int(value < 0), losses + int(value > 0)
        mass = float(betaln(wins + 1, losses + 1))
        above_half = float(betaincc(wins + 1, losses + 1, 0.5))
        log_wealth = (wins + losses + 1) * math.log(2) + mass + math.log(above_half) if above_half else -math.inf
        e_values.append(math.exp(min(700.0, log_wealth)))
        ends = _win_rates(wins, losses, math.log(alpha) + mass)
        low.append(ends[0])
        high.append(ends[1])
    return _sequence(e_values, low, high, alpha)


def _win_rates(wins: int, losses: int, log_level: float) -> tuple[float, float]:
    """Where wins log p + losses log(1 - p) falls to `log_level`, on both sides of its peak."""
    from scipy.optimize import brentq

    def excess(p: float) -> float:
        return wins * math.log(p) + losses * math.log1p(-p) - log_level

    peak = wins / (wins + losses) if wins + losses else 0.5
    nothing, everything = 1e-12, 1 - 1e-12
    inside = min(everything, max(nothing, peak))
    low = float(brentq(excess, nothing, inside)) if wins and excess(nothing) < 0 else 0.0
    high = float(brentq(excess, inside, everything)) if losses and excess(everything) < 0 else 1.0
    return low, high


def _sequence(e_values: list[float], low: list[float], high: list[float], alpha: float) -> SequentialTest:
    running = np.maximum.accumulate(e_values)
    crossed = np.flatnonzero(running >= 1 / alpha)
    return SequentialTest(
        n=len(e_values),
        e_values=tuple(e_values),
        p_values=tuple(float(min(1.0, 1 / wealth)) for wealth in running),
        low=tuple(low),
        high=tuple(high),
        alpha=alpha,
        decided_at=int(crossed[0]) + 1 if crossed.size else None,
    )

"""An always-valid one-sided test for few pairs whose spread is known from many candidates.

At one or two seeds a test with unknown variance can say nothing. Within a race it need not be
unknown: the spread of paired differences over seeds, pooled over all candidates measured so far, has many
degrees of freedom. A candidate with a larger spread of its own is judged with that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from analysis.differences import checked_differences, checked_share


def worse_e_value(differences: ArrayLike, *, sd: float, prior_sd: float = 1.0) -> float:
    """Evidence that the mean difference is above zero (the candidate is worse), an e-value.

    With x = sum d / sd and rho = prior_sd^2, the likelihood ratio mixed over positive effects theta ~ |N(0, rho)|,
    in units of sd, against theta = 0:
        E_n = 2 (1 + n rho)^(-1/2) exp(rho x^2 / (2 (1 + n rho))) Phi(x sqrt(rho / (1 + n rho))).
    It is a supermartingale for every mean at or below zero, so P(E_n ever >= 1 / alpha) <= alpha whenever one stops.
    Assumes independent normal differences with standard deviation at most `sd`. Sources: Robbins (1970); Howard
    et al. (2021), the one-sided normal mixture.

    Args:
        differences: candidate minus the other arm, one per seed, shape (n,), nats.
        sd: standard deviation of one difference, nats, positive.
        prior_sd: spread of effects under the mixture, in units of `sd`.

    Raises:
        ValueError: no difference, a value that is not finite, or a spread that is not positive.
    """
    values = checked_differences(differences, minimum=1)
    for name, value in (("sd", sd), ("prior_sd", prior_sd)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a positive number; got {value!r}")
    from scipy.special import log_ndtr

    n, rho, x = values.size, prior_sd**2, float(values.sum()) / sd
    ratio = 1 + n * rho
    log_e = math.log(2) - math.log(ratio) / 2 + rho * x**2 / (2 * ratio) + float(log_ndtr(x * math.sqrt(rho / ratio)))
    return math.exp(min(700.0, log_e))


def is_worse(differences: ArrayLike, *, sd: float, alpha: float = 0.05, prior_sd: float = 1.0) -> bool:
    """Whether the e-value reaches 1 / alpha; the larger of `sd` and the differences' own spread is used.

    Raises:
        ValueError: as `worse_e_value`, or alpha outside (0, 1).
    """
    checked_share("alpha", alpha)
    values = checked_differences(differences, minimum=1)
    own = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return worse_e_value(values, sd=max(sd, own), prior_sd=prior_sd) >= 1 / alpha


def pooled_sd(groups: Iterable[ArrayLike]) -> tuple[float, int]:
    """Standard deviation within groups, pooled, and its degrees of freedom; (0.0, 0) where no group has two values.

    Groups without any spread (exact nulls, the same function as the reference) say nothing about noise: left out.

    Raises:
        ValueError: a value that is not finite.
    """
    squares, freedom = 0.0, 0
    for group in groups:
        values = checked_differences(group, minimum=1)
        if values.size > 1 and np.ptp(values) > 0:
            squares += float(((values - values.mean()) ** 2).sum())
            freedom += values.size - 1
    return (math.sqrt(squares / freedom) if freedom else 0.0), freedom

"""Paired differences: the one input of every test here, checked once.

A difference is candidate minus reference at the same seed, in nats of loss, so negative is
better. Choices: nothing is ever dropped in silence (a NaN, an infinity or a missing pair is
an error), and the two shapes without spread are named rather than left to become NaN: all
differences exactly zero (`EXACT_NULL`, the two arms are the same function) and all
differences equal but not zero (`CONSTANT`, the seed had no effect).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
Alternative = Literal["two-sided", "less", "greater"]
Spread = Literal["ordinary", "exact null", "constant"]

ALTERNATIVES: tuple[Alternative, ...] = ("two-sided", "less", "greater")
EXACT_NULL: Spread = "exact null"
CONSTANT: Spread = "constant"
ORDINARY: Spread = "ordinary"


def checked_differences(differences: ArrayLike, *, minimum: int = 2) -> FloatArray:
    """`differences` as a float64 vector, shape (n,).

    Args:
        differences: candidate minus reference, one per seed.
        minimum: least number of pairs the caller can work with.

    Raises:
        ValueError: not one-dimensional, fewer than `minimum` pairs, or a value that is not finite.
    """
    values = np.array(differences, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"paired differences must be one-dimensional, one per seed; got shape {values.shape}")
    if values.size < minimum:
        raise ValueError(f"{values.size} paired difference(s) given; at least {minimum} are needed")
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        raise ValueError(
            f"paired differences must be finite; pair {int(wrong[0])} is {values[wrong[0]]} "
            f"({wrong.size} of {values.size} are not finite; a failed run is not a number)"
        )
    return values


def paired_differences(candidate: ArrayLike, reference: ArrayLike) -> FloatArray:
    """Candidate minus reference, pair by pair, shape (n,).

    Raises:
        ValueError: the arms differ in length, or a value is not finite.
    """
    arms = [np.array(arm, dtype=np.float64) for arm in (candidate, reference)]
    if arms[0].shape != arms[1].shape:
        raise ValueError(f"arms must be paired: candidate has shape {arms[0].shape}, reference {arms[1].shape}")
    for name, arm in zip(("candidate", "reference"), arms, strict=True):
        if not np.isfinite(arm).all():
            raise ValueError(f"every {name} value must be finite; got {arm[~np.isfinite(arm)][0]}")
    return checked_differences(arms[0] - arms[1], minimum=1)


def spread_of(values: FloatArray) -> Spread:
    """Whether checked differences have a spread, and if not, which of the two shapes without one they are."""
    if np.ptp(values) > 0.0:
        return ORDINARY
    return EXACT_NULL if values[0] == 0.0 else CONSTANT


def checked_alternative(alternative: str) -> Alternative:
    """`alternative` if it is a known one.

    Raises:
        ValueError: it is not.
    """
    for known in ALTERNATIVES:
        if alternative == known:
            return known
    raise ValueError(f"unknown alternative {alternative!r}; allowed: {', '.join(ALTERNATIVES)}")


def checked_share(name: str, value: float) -> float:
    """`value` if it lies strictly between 0 and 1 (a level, a confidence, a power).

    Raises:
        ValueError: it does not.
    """
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} must lie strictly between 0 and 1; got {value!r}")
    return float(value)

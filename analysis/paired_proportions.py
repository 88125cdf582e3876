"""Two arms asked the same yes-or-no questions: exact McNemar test, and the ratio of their shares with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """An exact McNemar test.

    Attributes:
        only_first: questions that only the first arm got right.
        only_second: questions that only the second arm got right.
        p: two-sided.
    """

    only_first: int
    only_second: int
    p: float


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """Whether two arms that answered the same questions differ (McNemar 1947; exact binomial form).

    Args:
        first: right or wrong, one a question.
        second: the same of the other arm.

    Raises:
        ValueError: another number of questions.
    """
    if len(first) != len(second):
        raise ValueError(f"the arms answered {len(first)} and {len(second)} questions; they must be the same")
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    n, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(comb(n, k) for k in range(fewer + 1))
    return McNemar(only_first=only_first, only_second=only_second, p=min(1.0, float(2 * tail / 2**n)) if n else 1.0)


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Relative gain of the first arm's share over the second's, with a 95 % interval; None where the share is 0."""

    value: float | None
    low: float | None
    high: float | None


def relative_gain(
    first: Sequence[bool], second: Sequence[bool], random: np.random.Generator, resamples: int = 4000
) -> Gain:
    """first / second - 1 with a percentile bootstrap over questions, which keeps the pairs together.

    Args:
        first: right or wrong, one a question.
        second: the same of the arm that is compared with.
        random: of the resampling.
        resamples: how many.

    Raises:
        ValueError: another number of questions, or none.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"the arms answered {len(first)} and {len(second)} questions; they must be the same, and some")
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if not b.any():
        return Gain(value=None, low=None, high=None)
    picks = random.integers(0, len(a), size=(resamples, len(a)))
    below = b[picks].mean(1)
    ratios = a[picks].mean(1)[below > 0] / below[below > 0] - 1.0
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Gain(value=float(a.mean() / b.mean() - 1.0), low=float(low), high=float(high))

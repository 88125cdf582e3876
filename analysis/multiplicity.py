"""Corrections for asking several questions at once.

`holm` keeps the chance of even one false promotion below alpha whatever the dependence between
the tests; the promotion rule uses it. `benjamini_hochberg` keeps the expected share of false
ones among those found below alpha; it is for exploring, never for promoting.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from analysis.differences import FloatArray


def _checked_p_values(p_values: ArrayLike) -> FloatArray:
    values = np.array(p_values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"p-values must be a non-empty one-dimensional list; got shape {values.shape}")
    wrong = values[~((values >= 0) & (values <= 1))]
    if wrong.size:
        raise ValueError(f"p-values must lie in [0, 1]; got {wrong[0]} (a test that was not made has no p-value)")
    return values


def holm(p_values: ArrayLike) -> FloatArray:
    """Holm's step-down adjusted p-values, shape (m,), in the order given.

    With p_(1) <= ... <= p_(m): adjusted p_(k) = max over j <= k of min(1, (m - j + 1) p_(j)). Controls the
    family-wise error rate under any dependence. Source: Holm (1979).

    Raises:
        ValueError: no p-value, or one outside [0, 1] or not a number.
    """
    values = _checked_p_values(p_values)
    order = np.argsort(values, kind="stable")
    steps = np.minimum(1.0, values[order] * np.arange(values.size, 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted


def benjamini_hochberg(p_values: ArrayLike) -> FloatArray:
    """Benjamini and Hochberg's step-up adjusted p-values, shape (m,), in the order given.

    Adjusted p_(k) = min over j >= k of min(1, m p_(j) / j). Controls the false discovery rate for independent
    or positively dependent tests. Source: Benjamini and Hochberg (1995).

    Raises:
        ValueError: no p-value, or one outside [0, 1] or not a number.
    """
    values = _checked_p_values(p_values)
    order = np.argsort(values, kind="stable")
    steps = np.minimum(1.0, values[order] * values.size / np.arange(1, values.size + 1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum.accumulate(steps[::-1])[::-1]
    return adjusted

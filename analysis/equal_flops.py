"""Loss at equal training FLOPs: a candidate that costs more a token must also win when both may spend the same.

Only full-horizon losses are used, one a size: a loss in the middle of a run is that of an
unfinished learning-rate schedule and would flatter whoever stopped there. Between two sizes the
loss is taken to be linear in ln FLOPs; nothing is said outside the range that both arms reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.differences import FloatArray
from analysis.paired_tests import PairedTTest, paired_t


@dataclass(frozen=True, kw_only=True)
class EqualFlops:
    """The paired difference at one budget.

    Attributes:
        flops: training FLOPs that both arms spend.
        differences: (seeds,) candidate minus reference, interpolated at that budget, nats; negative is better.
        test: paired t test and interval of their mean, two-sided.
    """

    flops: float
    differences: tuple[float, ...]
    test: PairedTTest


def equal_flops(
    candidate_flops: ArrayLike,
    candidate_losses: ArrayLike,
    reference_flops: ArrayLike,
    reference_losses: ArrayLike,
    *,
    confidence: float = 0.95,
) -> list[EqualFlops]:
    """The paired difference at every budget of the reference's sizes that the candidate's sizes enclose.

    Args:
        candidate_flops, reference_flops: training FLOPs of a run at each size, shape (sizes,), at least two, all
            different.
        candidate_losses, reference_losses: full-horizon losses, shape (seeds, sizes), the same seeds in the same order.
        confidence: level of the intervals.

    Returns:
        One entry a budget, ascending; empty where the two ranges do not meet.

    Raises:
        ValueError: fewer than two sizes or seeds, shapes that do not fit, FLOPs that are not positive or repeat, or a
            value that is not finite.
    """
    ours, our_losses = _arm("candidate", candidate_flops, candidate_losses)
    theirs, their_losses = _arm("reference", reference_flops, reference_losses)
    if our_losses.shape[0] != their_losses.shape[0]:
        raise ValueError(
            f"arms must be paired: candidate has {our_losses.shape[0]} seeds, reference {their_losses.shape[0]}"
        )
    rows = []
    for budget in theirs[(theirs >= ours[0]) & (theirs <= ours[-1])]:
        gaps = _loss_at(ours, our_losses, budget) - _loss_at(theirs, their_losses, budget)
        rows.append(
            EqualFlops(
                flops=float(budget),
                differences=tuple(float(gap) for gap in gaps),
                test=paired_t(gaps, confidence=confidence),
            )
        )
    return rows


def _arm(name: str, flops: ArrayLike, losses: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """FLOPs ascending, shape (sizes,), and the losses in that order, shape (seeds, sizes)."""
    counts, table = np.array(flops, dtype=np.float64), np.array(losses, dtype=np.float64)
    if counts.ndim != 1 or counts.size < 2 or table.ndim != 2 or table.shape[1] != counts.size or table.shape[0] < 2:
        raise ValueError(
            f"{name}: FLOPs must have shape (sizes,) with at least 2 sizes and losses (seeds, sizes) with at least 2 "
            f"seeds; got {counts.shape} and {table.shape}"
        )
    if not (np.isfinite(counts).all() and (counts > 0).all()) or np.unique(counts).size != counts.size:
        raise ValueError(f"{name}: FLOPs must be positive and all different; got {counts.tolist()}")
    if not np.isfinite(table).all():
        raise ValueError(f"{name}: losses must be finite; got {table[~np.isfinite(table)][0]}")
    order = np.argsort(counts)
    return counts[order], table[:, order]


def _loss_at(flops: FloatArray, losses: FloatArray, budget: float) -> FloatArray:
    """Losses at a budget, linear in ln FLOPs between sizes; shape (seeds,)."""
    return np.array([np.interp(np.log(budget), np.log(flops), row) for row in losses], dtype=np.float64)

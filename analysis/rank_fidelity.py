"""How well early rungs rank what the full horizon ranks: whether a short run may stand in for a long one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from analysis.differences import FloatArray, checked_share


@dataclass(frozen=True, kw_only=True)
class RungFidelity:
    """How well one rung ranks candidates.

    Attributes:
        rung: its step.
        tau: Kendall's tau-b between the mean losses at this rung and at the final one.
        low, high: percentile interval over resamples of candidates; None without a generator.
        best_in_top_half: the best final candidate is in the better half at this rung (halving would have kept it).
    """

    rung: int
    tau: float
    low: float | None
    high: float | None
    best_in_top_half: bool


@dataclass(frozen=True, kw_only=True)
class RankFidelity:
    """Result of `rank_fidelity`.

    Attributes:
        rungs: one entry per rung before the final one.
        final_rung: the step they are compared with.
        ceiling: tau between two halves of the seeds at the final rung, mean over splits; no rung can be expected to
            rank better. None with one seed.
        n_candidates, n_seeds: what was ranked.
        confidence: level of the intervals.
    """

    rungs: tuple[RungFidelity, ...]
    final_rung: int
    ceiling: float | None
    n_candidates: int
    n_seeds: int
    confidence: float


def rank_fidelity(
    losses: ArrayLike,
    rungs: Sequence[int],
    *,
    rng: np.random.Generator | None = None,
    confidence: float = 0.95,
    n_resamples: int = 500,
) -> RankFidelity:
    """Kendall's tau-b of every early rung's ranking with the final one.

    tau-b = (concordant - discordant) / sqrt((pairs not tied at the rung) (pairs not tied at the end)). Source: Kendall
    (1945). The ceiling halves the seeds in every rotation of their order.

    Args:
        losses: validation losses, shape (candidates, rungs) or (seeds, candidates, rungs), at least three candidates.
        rungs: steps, rising, one per column; the last is the full horizon.
        rng: draws resamples of candidates for the intervals; without it there are none.
        confidence: level of the intervals.
        n_resamples: resamples of candidates.

    Raises:
        ValueError: another shape, fewer than three candidates or two rungs, rungs that do not rise, a loss that is not
            finite, or a rung at which all candidates tie.
    """
    table = np.array(losses, dtype=np.float64)
    if table.ndim == 2:
        table = table[None]
    if table.ndim != 3 or table.shape[0] < 1 or table.shape[1] < 3 or table.shape[2] < 2:
        raise ValueError(
            "losses must have shape (candidates, rungs) or (seeds, candidates, rungs) with at least 3 candidates and "
            f"2 rungs; got {np.shape(losses)}"
        )
    steps = [int(rung) for rung in rungs]
    if len(steps) != table.shape[2] or any(a >= b for a, b in pairwise(steps)):
        raise ValueError(f"rungs must rise and match the {table.shape[2]} columns of losses; got {list(rungs)}")
    if not np.isfinite(table).all():
        raise ValueError("losses must be finite; leave a failed candidate out by name, not as a number")
    checked_share("confidence", confidence)
    mean = table.mean(axis=0)  # (candidates, rungs)
    for step, column in zip(steps, mean.T, strict=True):
        if np.ptp(column) == 0.0:
            raise ValueError(f"all candidates tie at rung {step}; there is no ranking to compare")
    n_seeds, n_candidates, n_rungs = table.shape
    drawn = None if rng is None else rng.integers(0, n_candidates, size=(n_resamples, n_candidates))
    final = mean[:, -1]
    entries = []
    for column in range(n_rungs - 1):
        early = mean[:, column]
        low, high = (None, None) if drawn is None else _tau_interval(early, final, drawn, confidence)
        top_half = np.argsort(early, kind="stable")[: math.ceil(n_candidates / 2)]
        entries.append(
            RungFidelity(
                rung=steps[column],
                tau=kendall_tau(early, final),
                low=low,
                high=high,
                best_in_top_half=bool(final.argmin() in top_half),
            )
        )
    return RankFidelity(
        rungs=tuple(entries),
        final_rung=steps[-1],
        ceiling=_ceiling(table[:, :, -1]) if n_seeds > 1 else None,
        n_candidates=n_candidates,
        n_seeds=n_seeds,
        confidence=confidence,
    )


def kendall_tau(first: FloatArray, second: FloatArray) -> float:
    """Kendall's tau-b of two lists of losses, shape (candidates,); NaN when either is all ties."""
    from scipy.stats import kendalltau

    return float(kendalltau(first, second).statistic)


def curve_table(curves: Mapping[str, Sequence[Sequence[Sequence[float]]]], rungs: Sequence[int]) -> FloatArray:
    """Losses at rungs from recorded curves, shape (seeds, candidates, rungs), candidates in the mapping's order.

    Args:
        curves: for each candidate one curve per seed, a list of [step, train_loss, val_loss].
        rungs: steps to read; each must have been measured, nothing is interpolated.

    Raises:
        ValueError: no candidate, candidates with different numbers of seeds, or a rung at which a curve has no
            val_loss.
    """
    counts = {name: len(seeds) for name, seeds in curves.items()}
    if not counts or len(set(counts.values())) != 1 or 0 in counts.values():
        raise ValueError(
            f"every candidate needs the same number of seeds, at least one; got {counts or 'no candidate'}"
        )
    table = []
    for name, seeds in curves.items():
        for index, curve in enumerate(seeds):
            measured = {int(step): val_loss for step, _, val_loss in curve if val_loss is not None}
            absent = [rung for rung in rungs if rung not in measured]
            if absent:
                raise ValueError(
                    f"{name!r}, seed {index}: no validation loss at step {absent[0]}; measured at {sorted(measured)}"
                )
            table.append([float(measured[rung]) for rung in rungs])
    n_seeds = next(iter(counts.values()))
    return np.array(table, dtype=np.float64).reshape(len(counts), n_seeds, len(rungs)).transpose(1, 0, 2)


def _tau_interval(
    early: FloatArray, final: FloatArray, drawn: np.ndarray[tuple[int, ...], np.dtype[np.int64]], confidence: float
) -> tuple[float, float]:
    # A resample that drew one candidate only has no ranking and is left out (1 in 9 of three, 1 in 625 of five).
    taus = [
        kendall_tau(early[rows], final[rows]) for rows in drawn if np.ptp(early[rows]) > 0 and np.ptp(final[rows]) > 0
    ]
    low, high = np.quantile(taus, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _ceiling(final: FloatArray) -> float | None:
    """Mean tau between halves of the seeds, losses shape (seeds, candidates); None where a half is all ties."""
    n_seeds = final.shape[0]
    taus = []
    for start in range(n_seeds):
        order = np.roll(np.arange(n_seeds), start)
        halves = final[order[: n_seeds // 2]].mean(axis=0), final[order[n_seeds // 2 :]].mean(axis=0)
        taus.append(kendall_tau(*halves))
    return float(np.mean(taus)) if np.isfinite(taus).all() else None

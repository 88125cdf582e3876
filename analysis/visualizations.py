"""The figures: arrays in, a matplotlib Figure out; nothing is shown, nothing is read, nothing global changes.

Colour is never the only sign: every series has its own marker and dash too. `series` picks them (0 is the
reference), so that an arm looks the same in every figure; None takes the arm's place in the figure. Labels are texts of
strangers, so mathematical notation in them is not interpreted. `analysis.svg_figure.svg_text` turns a
figure into SVG for a page.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.lineage_tree import LineageNode, lineage_tree
from analysis.svg_figure import (
    DASHES,
    GOOD,
    MARKERS,
    MUTED,
    PAPER,
    SERIES,
    clean_text,
    drawn,
    new_figure,
    shown_label,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "CurveArm",
    "DifferenceRow",
    "EffectRow",
    "LineageNode",
    "ParetoPoint",
    "ScalingArm",
    "forest_plot",
    "learning_curves",
    "lineage_tree",
    "paired_differences",
    "pareto",
    "pareto_front",
    "scaling_fit",
]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class CurveArm:
    """Losses of one arm: `steps` (S,), `losses` (R, S) with one row a run; NaN where not measured."""

    label: str
    steps: ArrayLike
    losses: ArrayLike
    series: int | None = None


@dataclass(frozen=True, kw_only=True)
class DifferenceRow:
    """Paired differences (n,) of one comparison in nats, with their mean and its interval where known."""

    label: str
    differences: ArrayLike
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    series: int | None = None


@dataclass(frozen=True, kw_only=True)
class EffectRow:
    """One effect with its interval in nats; `summary` marks the one that decides."""

    label: str
    mean: float
    low: float | None = None
    high: float | None = None
    summary: bool = False


@dataclass(frozen=True, kw_only=True)
class ScalingArm:
    """One arm's losses (P,) at parameter counts (P,), and loss = E + A (N / n_unit) ** -alpha where fitted."""

    label: str
    n_parameters: ArrayLike
    losses: ArrayLike
    E: float | None = None
    A: float | None = None
    alpha: float | None = None
    n_unit: float = 1.0
    series: int | None = None

    def predicted(self, n: FloatArray) -> FloatArray | None:
        """The fitted loss at `n` parameters (any shape); None without a fit."""
        if self.E is None or self.A is None or self.alpha is None:
            return None
        return np.asarray(self.E + self.A * (n / self.n_unit) ** -self.alpha, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class ParetoPoint:
    """One candidate: what it costs and the loss it reaches; `series` 0 is the reference, None a candidate of many."""

    label: str
    cost: float
    loss: float
    series: int | None = None


def _legend_above(axes: Any, columns: int = 3) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=columns,
        borderaxespad=0.2,
        handlelength=2.4,
        handletextpad=0.5,
        columnspacing=1.2,
    )


@drawn
def learning_curves(arms: Sequence[CurveArm], *, reference: int | None = 0) -> Figure:
    """Validation loss by step: mean over runs with the range over runs as a band, for every arm.

    Below it, where the arms share steps and runs, the paired difference of each arm to `arms[reference]`: a
    sprinter crosses zero. Rows of the arms are taken as pairs (same seed, same row).

    Raises:
        ValueError: the shapes of an arm do not fit.
    """
    checked = [_checked_arm(arm) for arm in arms]
    pairs = _paired_arms(checked, reference)
    figure = new_figure(4.6 if pairs else 3.2)
    if pairs:
        axes, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.0, 1.15])
    else:
        axes, lower = figure.subplots(), None
    series = [number if arm.series is None else arm.series for number, arm in enumerate(arms)]
    for number, (arm, (steps, losses)) in enumerate(zip(arms, checked, strict=True)):
        _band(axes, steps, losses, series[number], shown_label(arm.label))
    axes.set_ylabel("validation loss, nats")
    if arms:
        _legend_above(axes)
    if lower is not None and reference is not None:
        lower.axhline(0.0, color=SERIES[0], linewidth=1.2, linestyle="--")
        for number in pairs:
            steps, losses = checked[number]
            _band(lower, steps, losses - checked[reference][1], series[number], "")
        lower.set_ylabel("minus reference")
    (lower if lower is not None else axes).set_xlabel("step")
    return figure  # type: ignore[no-any-return]


def _checked_arm(arm: CurveArm) -> tuple[FloatArray, FloatArray]:
    steps = np.asarray(arm.steps, dtype=np.float64)
    losses = np.atleast_2d(np.asarray(arm.losses, dtype=np.float64))
    if steps.ndim != 1 or losses.ndim != 2 or losses.shape[1] != steps.shape[0]:
        raise ValueError(
            f"arm {arm.label!r}: losses of shape {losses.shape} do not fit steps of shape {steps.shape}; "
            "expected (R, S) and (S,)"
        )
    return steps, losses


def _paired_arms(checked: Sequence[tuple[FloatArray, FloatArray]], reference: int | None) -> list[int]:
    """Numbers of the arms that can be subtracted from the reference row by row."""
    if reference is None or not 0 <= reference < len(checked):
        return []
    steps, losses = checked[reference]
    return [
        number
        for number, (other_steps, other) in enumerate(checked)
        if number != reference and other.shape == losses.shape and np.array_equal(other_steps, steps) and steps.size
    ]


def _band(axes: Any, steps: FloatArray, losses: FloatArray, number: int, label: str) -> None:
    seen = np.isfinite(losses).any(axis=0)
    if not seen.any():
        return
    steps, losses = steps[seen], np.where(np.isfinite(losses[:, seen]), losses[:, seen], np.nan)
    colour, dash = SERIES[number % len(SERIES)], DASHES[number % len(DASHES)]
    if losses.shape[0] > 1:
        axes.fill_between(
            steps, np.nanmin(losses, axis=0), np.nanmax(losses, axis=0), color=colour, alpha=0.16, linewidth=0
        )
    marker = MARKERS[number % len(MARKERS)] if steps.size <= 12 else ""
    axes.plot(
        steps, np.nanmean(losses, axis=0), color=colour, linestyle=dash, marker=marker, markersize=3.8, label=label
    )


@drawn
def paired_differences(rows: Sequence[DifferenceRow], *, least_effect: float | None = None) -> Figure:
    """Every paired difference as a dot, the mean as a diamond, its interval as a bar; left of zero is better."""
    figure = new_figure(1.35 + 0.72 * max(1, len(rows)))
    axes = figure.subplots()
    axes.axvline(0.0, color=SERIES[0], linewidth=1.3)
    if least_effect:
        axes.axvline(-least_effect, color=GOOD, linewidth=1.1, linestyle=(0, (4, 3)))
        axes.annotate(
            f"least useful gain {least_effect:g}",
            xy=(-least_effect, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=10,
            color=GOOD,
        )
    for number, row in enumerate(rows):
        values = np.sort(np.asarray(row.differences, dtype=np.float64))
        values = values[np.isfinite(values)]
        series = 1 + number % (len(SERIES) - 1) if row.series is None else row.series
        colour, marker = SERIES[series % len(SERIES)], MARKERS[series % len(MARKERS)]
        spread = np.where(np.arange(values.size) % 2 == 0, 0.13, 0.23)
        axes.plot(
            values, number + spread, linestyle="none", marker=marker, markersize=5, color=colour, alpha=0.75, mew=0
        )
        _interval(axes, number - 0.14, row.mean, row.low, row.high, colour)
    axes.set_yticks(range(len(rows)), [shown_label(row.label) for row in rows])
    axes.set_ylim(max(1, len(rows)) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.get_major_locator().set_params(nbins=6)
    axes.set_xlabel("loss minus the reference's, nats (left is better)")
    return figure  # type: ignore[no-any-return]


def _interval(
    axes: Any, y: float, mean: float | None, low: float | None, high: float | None, colour: str, size: float = 9.0
) -> None:
    if low is not None and high is not None:
        axes.plot([low, high], [y, y], color=colour, linewidth=3.4, solid_capstyle="butt", alpha=0.9)
    if mean is not None:
        axes.plot([mean], [y], marker="D", markersize=size, color=colour, mec=PAPER, mew=1.1, linestyle="none")


@drawn
def forest_plot(rows: Sequence[EffectRow], *, least_effect: float | None = None, series: int = 1) -> Figure:
    """Effects with their intervals, one row each, the numbers beside them; left of zero is better."""
    strong = SERIES[series % len(SERIES)]
    figure = new_figure(0.95 + 0.36 * max(1, len(rows)))
    axes = figure.subplots()
    axes.axvline(0.0, color=SERIES[0], linewidth=1.3)
    if least_effect:
        axes.axvline(-least_effect, color=GOOD, linewidth=1.1, linestyle=(0, (4, 3)))
    texts = []
    for number, row in enumerate(rows):
        _interval(axes, number, row.mean, row.low, row.high, strong if row.summary else MUTED, 9 if row.summary else 6)
        shown = f"{row.mean:+.4f}"
        if row.low is not None and row.high is not None:
            shown += f"  [{row.low:+.4f}, {row.high:+.4f}]"
        texts.append(shown)
    axes.set_yticks(range(len(rows)), [shown_label(row.label) for row in rows])
    axes.set_ylim(max(1, len(rows)) - 0.5, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(range(len(rows)), texts)
    beside.tick_params(axis="y", length=0)
    beside.spines["right"].set_visible(False)
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_fontweight("bold" if row.summary else "normal")
    axes.xaxis.get_major_locator().set_params(nbins=5)
    axes.set_xlabel("loss minus the reference's, nats (left is better)")
    return figure  # type: ignore[no-any-return]


@drawn
def scaling_fit(arms: Sequence[ScalingArm]) -> Figure:
    """Loss against parameters (logarithmic) with each arm's fit: solid where measured, dotted beyond, to twice N."""
    figure = new_figure(3.4)
    axes = figure.subplots()
    axes.set_xscale("log")
    for number, arm in enumerate(arms):
        n = np.asarray(arm.n_parameters, dtype=np.float64)
        losses = np.asarray(arm.losses, dtype=np.float64)
        if n.shape != losses.shape or n.ndim != 1:
            raise ValueError(
                f"arm {arm.label!r}: {n.shape} parameter counts and {losses.shape} losses; expected (P,) both"
            )
        kept = np.isfinite(n) & np.isfinite(losses) & (n > 0)
        n, losses = n[kept], losses[kept]
        series = number if arm.series is None else arm.series
        colour = SERIES[series % len(SERIES)]
        axes.plot(
            n,
            losses,
            linestyle="none",
            marker=MARKERS[series % len(MARKERS)],
            markersize=6,
            color=colour,
            label=shown_label(arm.label),
        )
        if n.size:
            for start, end, dash in ((n.min(), n.max(), "-"), (n.max(), 2.0 * n.max(), ":")):
                grid = np.geomspace(start, end, 60)
                fitted = arm.predicted(grid)
                if fitted is not None:
                    axes.plot(grid, fitted, color=colour, linestyle=dash, linewidth=1.6)
    measured = sorted({float(n) for arm in arms for n in np.asarray(arm.n_parameters, dtype=np.float64) if n > 0})
    if measured and len({_count(n) for n in measured}) <= 12:
        apart = [n for n, before in zip(measured, [0.0, *measured], strict=False) if n > 1.15 * before]
        axes.set_xticks(apart, [_count(n) for n in apart])
        axes.set_xticks([], minor=True)
    else:
        axes.xaxis.set_major_formatter(_count)
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("parameters without the embedding")
    axes.set_ylabel("loss, nats")
    if arms:
        _legend_above(axes)
    return figure  # type: ignore[no-any-return]


def _count(value: float, _position: object = None, *, digits: int = 3) -> str:
    """1500000 -> 1.5M."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.{digits}g}{unit}"
    return f"{value:.{digits}g}"


def pareto_front(costs: ArrayLike, losses: ArrayLike) -> list[int]:
    """Indices of the points no other point beats in cost and loss both, by rising cost."""
    cost, loss = np.asarray(costs, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    front: list[int] = []
    best = math.inf
    for index in np.lexsort((loss, cost)):
        if loss[index] < best:
            front.append(int(index))
            best = float(loss[index])
    return front


@drawn
def pareto(points: Sequence[ParetoPoint], *, cost_label: str) -> Figure:
    """Loss against cost, the points nothing beats in both joined by a stair."""
    kept = [point for point in points if math.isfinite(point.cost) and math.isfinite(point.loss)]
    figure = new_figure(3.2)
    axes = figure.subplots()
    costs, losses = [point.cost for point in kept], [point.loss for point in kept]
    front = pareto_front(costs, losses)
    if kept and min(costs) > 0 and max(costs) > 3 * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter("")
    axes.step(
        [costs[index] for index in front], [losses[index] for index in front], where="post", color=MUTED, linewidth=1.2
    )
    for point in sorted(kept, key=lambda point: point.series is not None):
        series = point.series
        axes.plot(
            [point.cost],
            [point.loss],
            linestyle="none",
            marker="." if series is None else MARKERS[series % len(MARKERS)],
            markersize=8 if series is None else 7.5,
            color=MUTED if series is None else SERIES[series % len(SERIES)],
            mec=PAPER,
            mew=0.7,
            label=None if series is None else shown_label(point.label),
        )
    if axes.get_xscale() == "linear":
        axes.xaxis.get_major_locator().set_params(nbins=4)
    spread = (max(costs) - min(costs)) / max(costs) if kept and max(costs) > 0 else 1.0
    digits = 3 if spread > 0.1 or spread == 0.0 else min(8, 3 + math.ceil(-math.log10(spread)))
    axes.xaxis.set_major_formatter(functools.partial(_count, digits=digits))
    axes.set_xlabel(clean_text(cost_label, 60))
    axes.set_ylabel("loss, nats")
    if any(point.series is not None for point in kept):
        _legend_above(axes)
    return figure  # type: ignore[no-any-return]

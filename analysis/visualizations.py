"""The figures: arrays in, a matplotlib Figure out; nothing is shown, nothing is read, nothing global changes.

Colour is never the only sign: every series has its own marker and dash too. Labels are texts of
strangers, so mathematical notation in them is not interpreted. `analysis.svg_figure.svg_text` turns a
figure into SVG for a page.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.svg_figure import BAD, DASHES, GOOD, INK, MARKERS, MUTED, PAPER, SERIES, clean_text, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_P = ParamSpec("_P")
FloatArray = NDArray[np.float64]
WIDTH = 6.4
"""Inches; at 72 points an inch text keeps its size from a phone's width to a column's."""
LABEL_LENGTH = 34


@dataclass(frozen=True, kw_only=True)
class CurveArm:
    """Losses of one arm: `steps` (S,), `losses` (R, S) with one row a run; NaN where not measured."""

    label: str
    steps: ArrayLike
    losses: ArrayLike


@dataclass(frozen=True, kw_only=True)
class DifferenceRow:
    """Paired differences (n,) of one comparison in nats, with their mean and its interval where known."""

    label: str
    differences: ArrayLike
    mean: float | None = None
    low: float | None = None
    high: float | None = None


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


@dataclass(frozen=True, kw_only=True)
class LineageNode:
    """One candidate in the tree; `fitness` None = not evaluated, `failed` = it was and failed."""

    id: str
    parent: str | None
    iteration: int
    fitness: float | None = None
    failed: bool = False


def _drawn(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Draw under the house style and leave matplotlib's settings as they were."""

    @functools.wraps(draw)
    def inner(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context(style()):
            return draw(*args, **kwargs)

    return inner


def _figure(height: float, width: float = WIDTH) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _named(label: str) -> str:
    """A label matplotlib keeps as it is (it hides those that start with an underscore)."""
    text = clean_text(label, LABEL_LENGTH)
    return f" {text}" if text.startswith("_") else text


def _legend_above(axes: Any, columns: int = 2) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=columns, borderaxespad=0.2, handlelength=2.6)


@_drawn
def learning_curves(arms: Sequence[CurveArm], *, reference: int | None = 0) -> Figure:
    """Validation loss by step: mean over runs with the range over runs as a band, for every arm.

    Below it, where the arms share steps and runs, the paired difference of each arm to `arms[reference]`: a
    sprinter crosses zero. Rows of the arms are taken as pairs (same seed, same row).

    Raises:
        ValueError: the shapes of an arm do not fit.
    """
    checked = [_checked_arm(arm) for arm in arms]
    pairs = _paired_arms(checked, reference)
    figure = _figure(4.6 if pairs else 3.2)
    if pairs:
        axes, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.0, 1.15])
    else:
        axes, lower = figure.subplots(), None
    for number, (arm, (steps, losses)) in enumerate(zip(arms, checked, strict=True)):
        _band(axes, steps, losses, number, _named(arm.label))
    axes.set_ylabel("validation loss, nats")
    if arms:
        _legend_above(axes)
    if lower is not None and reference is not None:
        lower.axhline(0.0, color=SERIES[0], linewidth=1.2, linestyle="--")
        for number in pairs:
            steps, losses = checked[number]
            _band(lower, steps, losses - checked[reference][1], number, "")
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


@_drawn
def paired_differences(rows: Sequence[DifferenceRow], *, least_effect: float | None = None) -> Figure:
    """Every paired difference as a dot, the mean as a diamond, its interval as a bar; left of zero is better."""
    figure = _figure(1.35 + 0.72 * max(1, len(rows)))
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
            fontsize=9,
            color=GOOD,
        )
    for number, row in enumerate(rows):
        values = np.sort(np.asarray(row.differences, dtype=np.float64))
        values = values[np.isfinite(values)]
        colour = SERIES[1 + number % (len(SERIES) - 1)]
        marker = MARKERS[1 + number % (len(MARKERS) - 1)]
        spread = np.where(np.arange(values.size) % 2 == 0, 0.13, 0.23)
        axes.plot(
            values, number + spread, linestyle="none", marker=marker, markersize=5, color=colour, alpha=0.75, mew=0
        )
        _interval(axes, number - 0.14, row.mean, row.low, row.high, colour)
    axes.set_yticks(range(len(rows)), [_named(row.label) for row in rows])
    axes.set_ylim(max(1, len(rows)) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("loss minus the reference's with the same seed, nats (left is better)")
    return figure  # type: ignore[no-any-return]


def _interval(
    axes: Any, y: float, mean: float | None, low: float | None, high: float | None, colour: str, size: float = 9.0
) -> None:
    if low is not None and high is not None:
        axes.plot([low, high], [y, y], color=colour, linewidth=3.4, solid_capstyle="butt", alpha=0.9)
    if mean is not None:
        axes.plot([mean], [y], marker="D", markersize=size, color=colour, mec=PAPER, mew=1.1, linestyle="none")


@_drawn
def forest_plot(rows: Sequence[EffectRow], *, least_effect: float | None = None) -> Figure:
    """Effects with their intervals, one row each, the numbers beside them; left of zero is better."""
    figure = _figure(0.95 + 0.36 * max(1, len(rows)))
    axes = figure.subplots()
    axes.axvline(0.0, color=SERIES[0], linewidth=1.3)
    if least_effect:
        axes.axvline(-least_effect, color=GOOD, linewidth=1.1, linestyle=(0, (4, 3)))
    texts = []
    for number, row in enumerate(rows):
        _interval(
            axes, number, row.mean, row.low, row.high, SERIES[1] if row.summary else MUTED, 9 if row.summary else 6
        )
        shown = f"{row.mean:+.4f}"
        if row.low is not None and row.high is not None:
            shown += f"  [{row.low:+.4f}, {row.high:+.4f}]"
        texts.append(shown)
    axes.set_yticks(range(len(rows)), [_named(row.label) for row in rows])
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
    axes.set_xlabel("loss minus the reference's, nats (left is better)")
    return figure  # type: ignore[no-any-return]


@_drawn
def scaling_fit(arms: Sequence[ScalingArm]) -> Figure:
    """Loss against parameters (logarithmic) with each arm's fit: solid where measured, dotted beyond, to twice N."""
    figure = _figure(3.4)
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
        colour = SERIES[number % len(SERIES)]
        axes.plot(
            n,
            losses,
            linestyle="none",
            marker=MARKERS[number % len(MARKERS)],
            markersize=6,
            color=colour,
            label=_named(arm.label),
        )
        if n.size:
            for start, end, dash in ((n.min(), n.max(), "-"), (n.max(), 2.0 * n.max(), ":")):
                grid = np.geomspace(start, end, 60)
                fitted = arm.predicted(grid)
                if fitted is not None:
                    axes.plot(grid, fitted, color=colour, linestyle=dash, linewidth=1.6)
    axes.xaxis.set_major_formatter(_count)
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("parameters without the embedding")
    axes.set_ylabel("loss, nats")
    if arms:
        _legend_above(axes)
    return figure  # type: ignore[no-any-return]


def _count(value: float, _position: object = None) -> str:
    """1500000 -> 1.5M."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


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


@_drawn
def pareto(points: Sequence[ParetoPoint], *, cost_label: str) -> Figure:
    """Loss against cost, the points nothing beats in both joined by a stair."""
    kept = [point for point in points if math.isfinite(point.cost) and math.isfinite(point.loss)]
    figure = _figure(3.2)
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
            label=None if series is None else _named(point.label),
        )
    axes.xaxis.set_major_formatter(_count)
    axes.set_xlabel(clean_text(cost_label, 60))
    axes.set_ylabel("loss, nats")
    if any(point.series is not None for point in kept):
        _legend_above(axes)
    return figure  # type: ignore[no-any-return]


def lineage_lanes(nodes: Sequence[LineageNode]) -> dict[str, float]:
    """Height of every node: leaves stand in order of birth, a parent midway between its first and last child.

    An unknown parent, or one that would close a circle, makes its child a root.
    """
    by_id = {node.id: node for node in nodes}
    children: dict[str | None, list[str]] = {}
    placed: set[str] = set()
    for node in sorted(by_id.values(), key=lambda node: (node.iteration, node.id)):
        parent = node.parent if node.parent in placed else None
        children.setdefault(parent, []).append(node.id)
        placed.add(node.id)
    lanes: dict[str, float] = {}
    next_lane = 0
    stack = [(root, False) for root in reversed(children.get(None, []))]
    while stack:
        name, done = stack.pop()
        below = children.get(name, [])
        if not below:
            lanes[name] = float(next_lane)
            next_lane += 1
        elif done:
            lanes[name] = (lanes[below[0]] + lanes[below[-1]]) / 2
        else:
            stack.append((name, True))
            stack.extend((child, False) for child in reversed(below))
    return lanes


@_drawn
def lineage_tree(
    nodes: Sequence[LineageNode], *, path: Sequence[str] = (), labels: Mapping[str, str] | None = None
) -> Figure:
    """Who came from whom, by iteration; the line that leads to the winner is drawn strong.

    Filled: measured. Cross: failed. Ring: not evaluated.
    """
    lanes = lineage_lanes(nodes)
    height = max(lanes.values(), default=0.0) + 1
    figure = _figure(min(9.0, 1.15 + 0.2 * height))
    axes = figure.subplots()
    by_id = {node.id: node for node in nodes}
    strong = set(path)
    for node in by_id.values():
        parent = by_id.get(node.parent) if node.parent is not None else None
        if parent is None or (parent.iteration, parent.id) >= (node.iteration, node.id):
            continue
        on_path = node.id in strong and parent.id in strong
        bend = (parent.iteration + node.iteration) / 2
        axes.plot(
            [parent.iteration, bend, bend, node.iteration],
            [lanes[parent.id], lanes[parent.id], lanes[node.id], lanes[node.id]],
            color=SERIES[1] if on_path else MUTED,
            linewidth=2.4 if on_path else 0.9,
            alpha=1.0 if on_path else 0.6,
            zorder=2 if on_path else 1,
        )
    for node in by_id.values():
        colour = SERIES[1] if node.id in strong else INK
        look: dict[str, Any] = {"marker": "o", "markersize": 7 if node.id in strong else 5, "color": colour}
        if node.failed:
            look = {"marker": "x", "markersize": 6, "color": BAD, "mew": 1.6}
        elif node.fitness is None:
            look |= {"mfc": PAPER, "mew": 1.2}
        axes.plot([node.iteration], [lanes[node.id]], linestyle="none", zorder=3, **look)
    for name, text in (labels or {}).items():
        if name in by_id:
            axes.annotate(
                clean_text(text, LABEL_LENGTH),
                (by_id[name].iteration, lanes[name]),
                xytext=(7, -3.5),
                textcoords="offset points",
                fontsize=9,
            )
    axes.set_ylim(height - 0.4, -0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    axes.margins(x=0.08)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("iteration")
    return figure  # type: ignore[no-any-return]

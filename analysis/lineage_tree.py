"""The family tree of the candidates of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.svg_figure import BAD, INK, LABEL_LENGTH, MUTED, PAPER, SERIES, clean_text, drawn, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class LineageNode:
    """One candidate in the tree; `fitness` None = not evaluated, `failed` = it was and failed."""

    id: str
    parent: str | None
    iteration: int
    fitness: float | None = None
    failed: bool = False


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


@drawn
def lineage_tree(
    nodes: Sequence[LineageNode], *, path: Sequence[str] = (), labels: Mapping[str, str] | None = None
) -> Figure:
    """Who came from whom, by iteration; the line that leads to the winner is drawn strong.

    Filled: measured. Cross: failed. Ring: not evaluated.
    """
    lanes = lineage_lanes(nodes)
    height = max(lanes.values(), default=0.0) + 1
    figure = new_figure(min(9.0, 1.15 + 0.2 * height))
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
                fontsize=10,
            )
    axes.set_ylim(height - 0.4, -0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    axes.margins(x=0.08)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("iteration")
    return figure  # type: ignore[no-any-return]

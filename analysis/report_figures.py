"""Learning curves, scaling, cost against loss, and lineage: the drawn parts of the page below the evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from analysis.markup import Html, Row, csv_link, esc, number, paragraphs, shown, table
from analysis.report_view import View, loss_of
from analysis.svg_figure import svg_text
from analysis.visualizations import (
    CurveArm,
    LineageNode,
    ParetoPoint,
    ScalingArm,
    learning_curves,
    lineage_tree,
    pareto,
    scaling_fit,
)

MOST_SIZES = 8
MOST_NODES = 250
MOST_ANCESTORS = 40
MOST_STEPS = 300


def _figure(svg: str, caption: str, link: Html, heading: str = "") -> Html:
    title = f"<h3>{esc(heading)}</h3>" if heading else ""
    return Html(
        f"<figure>{title}{svg}<figcaption>{esc(caption, 2000)}</figcaption>"
        f'<p class="data-line">Data: {link}</p></figure>'
    )


def curves_section(view: View) -> Html:
    """Reference and candidate by step at each size, with their paired difference below."""
    parts = ["<h2>Learning curves</h2>"]
    drawn = [found for size in view.size_names[:MOST_SIZES] if (found := _curves_at(view, size))]
    if not drawn:
        parts.append(paragraphs("No learning curve was recorded."))
    else:
        parts.append(
            paragraphs(
                "Lines are means over seeds and bands their range. The lower part is the candidate minus the reference "
                "with the same seed: below zero is better, and a candidate that leads early and ends above zero is a "
                "sprinter."
            )
        )
        parts.append(f'<div class="pair">{"".join(drawn)}</div>')
    return Html(f'<section id="curves">{"".join(parts)}</section>')


def _curves_at(view: View, size: str) -> Html | None:
    wanted = view.arms[:3]
    rows = [row for row in view.data.curves if str(row.get("size")) == size and str(row.get("candidate")) in wanted]
    confirmed = [row for row in rows if row.get("purpose") == "confirmation"]
    rows = confirmed or rows
    values: dict[str, dict[object, dict[float, float]]] = {}
    for row in rows:
        step, loss = number(row.get("step")), number(row.get("val_loss"))
        if step is not None and loss is not None:
            values.setdefault(str(row["candidate"]), {}).setdefault(row.get("seed"), {})[step] = loss
    names = [name for name in wanted if name in values]
    if not names:
        return None
    steps = sorted({step for runs in values.values() for run in runs.values() for step in run})
    steps = steps[:: math.ceil(len(steps) / MOST_STEPS)]
    shared = set.intersection(*(set(values[name]) for name in names))
    arms = []
    for name in names:
        seeds = sorted(shared or set(values[name]), key=str)
        losses = [[values[name][seed].get(step, math.nan) for step in steps] for seed in seeds]
        arms.append(CurveArm(label=view.short(name), steps=steps, losses=np.array(losses), series=view.series(name)))
    paired = bool(shared) and names[0] == view.data.reference
    figure = learning_curves(arms, reference=0 if paired else None)
    label = f"Validation loss by step at size {size} for {', '.join(arm.label for arm in arms)}"
    columns = ("candidate", "size", "seed", "purpose", "step", "train_loss", "val_loss")
    runs = len(shared) or sum(len(found) for found in values.values())
    what = f"{runs} paired {'seed' if runs == 1 else 'seeds'}" if paired else f"{runs} runs"
    what += " of the confirmation" if confirmed else " of the search"
    return _figure(
        svg_text(figure, name=f"curves-{view.size_names.index(size)}", label=label),
        f"{what}.",
        csv_link(f"curves_{size}.csv", rows, columns, view.limits),
        f"Size {size}",
    )


def scaling_section(view: View) -> Html:
    """The fits of reference and candidate, and what they can and cannot tell."""
    arms, raw, rows, exact, sizes = [], [], [], False, 0
    for row in view.data.scaling[:4]:
        points = [(number(n), number(loss)) for n, loss in row.get("points") or ()]
        kept = [(n, loss) for n, loss in points if n is not None and loss is not None]
        if not kept:
            continue
        arm = str(row.get("arm"))
        arms.append(
            ScalingArm(
                label=view.short(arm),
                n_parameters=[n for n, _ in kept],
                losses=[loss for _, loss in kept],
                E=number(row.get("E")),
                A=number(row.get("A")),
                alpha=number(row.get("alpha")),
                n_unit=number(row.get("n_unit")) or 1.0,
                series=view.series(arm),
            )
        )
        raw += [{"arm": arm, "n_parameters": n, "loss": loss} for n, loss in kept]
        exact = exact or bool(row.get("exact"))
        sizes = max(sizes, len({n for n, _ in kept}))
        rows.append(
            (
                view.name(arm),
                shown(row.get("E"), ".4f", "not fitted"),
                shown(row.get("A"), ".4g", "not fitted"),
                shown(row.get("alpha"), ".3f", "not fitted"),
                shown(row.get("slope"), "+.4f", "not fitted"),
            )
        )
    if not arms:
        return Html(
            '<section id="scaling"><h2>Scaling</h2><p>No loss at more than one size was recorded.</p></section>'
        )
    figure = scaling_fit(arms)
    label = f"Loss against parameters with fitted power laws for {', '.join(arm.label for arm in arms)}"
    link = csv_link("scaling.csv", raw, ("arm", "n_parameters", "loss"), view.limits)
    return Html(
        '<section id="scaling"><h2>Scaling</h2>'
        + paragraphs(_scaling_words(sizes, exact), _unequal_training(view))
        + _figure(
            svg_text(figure, name="scaling", label=label),
            "Points are measured. The line is the fit, loss = E + A N to the power of minus "
            "\N{GREEK SMALL LETTER ALPHA}; dotted is beyond what was measured.",
            link,
        )
        + table(
            ("arm", "E, nats", "A", "\N{GREEK SMALL LETTER ALPHA}", "slope of loss on log N"), rows, numeric=".nnnn"
        )
        + "</section>"
    )


def _scaling_words(sizes: int, exact: bool) -> str:
    if sizes < 2:
        return "One size shows where the arms stand, not how they scale."
    if exact or sizes <= 3:
        fit = "passes through the mean loss of every size whatever the truth is" if sizes == 3 else "is not determined"
        return (
            f"With {sizes} sizes a curve of three parameters {fit}: there is nothing left to test it with. It can "
            "show whether the gap between the arms opened or closed over the sizes that were run. It cannot show that "
            "the law holds, and it is no ground for a claim about larger models. A steeper slope alone is no merit "
            "either: a model that is worse at every size can have the better slope."
        )
    return (
        f"{sizes} sizes leave {sizes - 3} to test a curve of three parameters with. What lies beyond the largest size "
        "is an extrapolation. A steeper slope alone is no merit: a model that is worse at every size can have the "
        "better slope."
    )


def _unequal_training(view: View) -> str:
    """A warning when the sizes were not trained alike; empty when they were or nothing is known."""
    steps = [int(found) for row in view.data.sizes if (found := number(row.get("steps"))) is not None]
    if len(set(steps)) < 2:
        return ""
    return (
        f"The sizes were trained for different numbers of steps ({', '.join(f'{n:,}' for n in steps)}), so differences "
        "between sizes mix the size of the model with the length of its training; differences between arms do not."
    )


def pareto_section(view: View) -> Html:
    """Loss against what a candidate costs, at the size where most were measured."""
    measured = [row for row in view.data.search if loss_of(row) is not None]
    if not measured:
        return Html("")
    sizes = [str(row.get("size")) for row in measured]
    size = max(
        dict.fromkeys(sizes),
        key=lambda name: len({row.get("candidate") for row in measured if str(row.get("size")) == name}),
    )
    at_size = [row for row in measured if str(row.get("size")) == size]
    groups: dict[str, list[Row]] = {}
    for row in at_size:
        groups.setdefault(str(row.get("candidate")), []).append(row)
    drawn = []
    kinds = (
        ("n_parameters", "parameters without the embedding"),
        ("flops", "FLOPs of one training run"),
        ("cpu_seconds", "CPU seconds of one training run"),
    )
    for field, label in kinds:
        points = []
        for candidate, rows in groups.items():
            costs = [cost for row in rows if (cost := number(row.get(field))) is not None]
            losses = [loss for row in rows if (loss := loss_of(row)) is not None]
            if costs:
                points.append(
                    ParetoPoint(
                        label=view.short(candidate),
                        cost=float(np.median(costs)),
                        loss=float(np.mean(losses)),
                        series=view.series(candidate),
                    )
                )
        if len(points) > 1:
            svg = svg_text(
                pareto(points, cost_label=label), name=f"pareto-{field}", label=f"Loss against {label} at size {size}"
            )
            drawn.append(f"<figure>{svg}</figure>")
    if not drawn:
        return Html("")
    columns = ("candidate", "size", "seed", "val_loss", "n_parameters", "flops", "cpu_seconds", "peak_memory_bytes")
    link = csv_link("cost_against_loss.csv", at_size, columns, view.limits)
    words = (
        f"Search runs at size {size}: mean loss over seeds, median cost. The stair joins the candidates that no other "
        "beats in both. Search losses choose candidates; they do not prove anything."
    )
    return Html(
        f'<section id="cost-loss"><h2>Loss against cost</h2>{paragraphs(words)}<div class="pair">{"".join(drawn)}</div>'
        f'<p class="data-line">Data: {link}</p></section>'
    )


def lineage_section(view: View) -> Html:
    """How the candidate in detail came about, in words and as a tree."""
    if not view.nodes:
        return Html('<section id="lineage"><h2>Lineage</h2><p>No candidate was recorded.</p></section>')
    nodes = _kept_nodes(view)
    focus = view.data.focus
    labels = {focus: view.short(focus)} if focus is not None else {}
    figure = lineage_tree(nodes, path=view.path, labels=labels)
    svg = svg_text(figure, name="lineage", label=f"Family tree of {len(nodes)} candidates by iteration")
    rows = list(view.nodes.values())
    link = csv_link("lineage.csv", rows, ("id", "parent", "iteration", "fitness", "status", "changes"), view.limits)
    cut = "" if len(nodes) == len(view.nodes) else f" Drawn: {len(nodes)} of {len(view.nodes):,}."
    line = view.path[-MOST_ANCESTORS:]
    steps = "".join(_step(view, name) for name in line)
    start = "From the start" if len(line) == len(view.path) else f"The last {len(line)} of {len(view.path):,} steps"
    words = f'<p>{start} to {view.name(focus)}:</p><ol class="steps">{steps}</ol>' if steps else ""
    caption = (
        f"Filled: measured. Cross: failed. Ring: not evaluated. The strong line leads to the candidate shown here.{cut}"
    )
    return Html(f'<section id="lineage"><h2>Lineage</h2>{words}{_figure(svg, caption, link)}</section>')


def _step(view: View, name: str) -> str:
    row = view.nodes[name]
    fitness = number(row.get("fitness"))
    said = f" (fitness {shown(fitness, '.4f')})" if fitness is not None and name != view.data.reference else ""
    return (
        f"<li>iteration {esc(row.get('iteration'), 20)}, {view.name(name)}{said}: "
        f"{esc(view.changes(name, 300) or 'no description recorded')}</li>"
    )


def _kept_nodes(view: View) -> list[LineageNode]:
    """All nodes, or of very many the winner's line and the last ones, as the figure wants them."""
    rows: Sequence[Row] = list(view.nodes.values())
    if len(rows) > MOST_NODES:
        kept = {*view.path[-MOST_ANCESTORS:], *(str(row["id"]) for row in rows[MOST_ANCESTORS - MOST_NODES :])}
        rows = [row for row in rows if str(row["id"]) in kept]
    return [
        LineageNode(
            id=str(row["id"]),
            parent=None if row.get("parent") is None else str(row["parent"]),
            iteration=int(number(row.get("iteration")) or 0),
            fitness=number(row.get("fitness")),
            failed=str(row.get("status") or "").lower() in FAILED_STATUSES,
        )
        for row in rows
    ]


FAILED_STATUSES = frozenset(
    {"failed", "rejected", "crashed", "diverged", "timed_out", "timedout", "out_of_memory", "outofmemory"}
)

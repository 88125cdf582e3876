"""Figures are read back from what was drawn: positions, bands, fronts, lanes, colours."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from analysis.lineage_tree import lineage_lanes
from analysis.svg_figure import SERIES, clean_text, svg_text
from analysis.visualizations import (
    CurveArm,
    DifferenceRow,
    EffectRow,
    LineageNode,
    ParetoPoint,
    ScalingArm,
    forest_plot,
    learning_curves,
    lineage_tree,
    paired_differences,
    pareto,
    pareto_front,
    scaling_fit,
)

STEPS = np.array([100.0, 200.0, 300.0])
REFERENCE = np.array([[5.0, 4.0, 3.5], [5.2, 4.2, 3.7]])


def _lines(axes, colour):
    return [line for line in axes.lines if line.get_color() == colour]


def test_curves_show_means_ranges_and_the_paired_difference():
    arms = [
        CurveArm(label="reference", steps=STEPS, losses=REFERENCE),
        CurveArm(label="sprinter", steps=STEPS, losses=REFERENCE + np.array([-0.5, 0.0, 0.1])),
    ]
    upper, lower = learning_curves(arms).axes
    (mean,) = _lines(upper, SERIES[0])
    np.testing.assert_allclose(mean.get_ydata(), [5.1, 4.1, 3.6])
    band = upper.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(3.5)
    assert band[:, 1].max() == pytest.approx(5.2)
    (difference,) = _lines(lower, SERIES[1])
    np.testing.assert_allclose(difference.get_ydata(), [-0.5, 0.0, 0.1])
    assert [text.get_text() for text in upper.get_legend().get_texts()] == ["reference", "sprinter"]


@pytest.mark.parametrize("other", [CurveArm(label="b", steps=STEPS[:2], losses=[[4.0, 3.0]]), None])
def test_curves_that_cannot_be_paired_are_drawn_without_a_difference(other):
    arms = [CurveArm(label="reference", steps=STEPS, losses=REFERENCE), *([other] if other else [])]
    assert len(learning_curves(arms).axes) == 1


def test_missing_points_are_left_out_and_a_missing_arm_is_not_drawn():
    losses = np.array([[5.0, np.nan, 3.0], [np.inf, np.nan, 5.0]])
    arms = [
        CurveArm(label="gap", steps=STEPS, losses=losses),
        CurveArm(label="none", steps=STEPS[:1], losses=[[np.nan]]),
    ]
    (axes,) = learning_curves(arms).axes
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_xdata(), [100, 300])
    np.testing.assert_allclose(line.get_ydata(), [5.0, 4.0])


def test_curves_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"arm 'x': losses of shape \(1, 2\) do not fit steps of shape \(3,\)"):
        learning_curves([CurveArm(label="x", steps=STEPS, losses=[1.0, 2.0])])


def test_differences_show_every_pair_the_mean_and_the_interval():
    row = DifferenceRow(label="a", differences=[-0.03, np.nan, -0.01], mean=-0.02, low=-0.05, high=0.01)
    (axes,) = paired_differences([row], least_effect=0.01).axes
    mine = _lines(axes, SERIES[1])
    assert sorted(len(line.get_xdata()) for line in mine) == [1, 2, 2]
    dots, interval, mean = mine
    np.testing.assert_allclose(dots.get_xdata(), [-0.03, -0.01])
    np.testing.assert_allclose(interval.get_xdata(), [-0.05, 0.01])
    np.testing.assert_allclose(mean.get_xdata(), [-0.02])
    assert [text.get_text() for text in axes.texts] == ["least useful gain 0.01"]
    assert any(np.allclose(line.get_xdata(), -0.01) for line in axes.lines)


def test_forest_writes_the_numbers_beside_the_rows():
    rows = [
        EffectRow(label="all sizes", mean=-0.0312, low=-0.04, high=-0.02, summary=True),
        EffectRow(label="d32", mean=0.01),
    ]
    figure = forest_plot(rows)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["all sizes", "d32"]
    assert axes.get_yticklabels()[0].get_fontweight() == "bold"
    text = svg_text(figure, name="f", label="forest")
    assert "-0.0312  [-0.0400, -0.0200]" in text
    assert "+0.0100" in text


def test_scaling_fit_draws_the_law_and_marks_what_is_extrapolated():
    n = np.array([1e6, 2e6, 4e6])
    arm = ScalingArm(
        label="r", n_parameters=n, losses=1.2 + 1.1 * (n / 1e6) ** -0.34, E=1.2, A=1.1, alpha=0.34, n_unit=1e6
    )
    (axes,) = scaling_fit([arm]).axes
    points, inside, beyond = axes.lines
    np.testing.assert_allclose(np.interp(n, inside.get_xdata(), inside.get_ydata()), points.get_ydata(), atol=1e-3)
    assert beyond.get_linestyle() == ":"
    assert beyond.get_xdata().min() == pytest.approx(4e6)
    assert beyond.get_xdata().max() == pytest.approx(8e6)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1M", "2M", "4M"]


def test_scaling_without_a_fit_draws_points_only():
    (axes,) = scaling_fit([ScalingArm(label="r", n_parameters=[1e6, np.nan], losses=[3.0, 2.0])]).axes
    (points,) = axes.lines
    assert len(points.get_xdata()) == 1
    with pytest.raises(ValueError, match="expected"):
        scaling_fit([ScalingArm(label="r", n_parameters=[1e6], losses=[3.0, 2.0])])


def test_the_front_holds_what_nothing_beats():
    rng = np.random.default_rng(0)
    costs, losses = rng.integers(0, 20, 60).astype(float), rng.integers(0, 20, 60).astype(float)
    front = pareto_front(costs, losses)
    points = set(zip(costs[front], losses[front], strict=True))
    assert len(points) == len(front)
    for cost, loss in zip(costs, losses, strict=True):
        beaten = any(c <= cost and v <= loss and (c, v) != (cost, loss) for c, v in zip(costs, losses, strict=True))
        assert ((cost, loss) in points) == (not beaten)
    assert pareto_front([], []) == []


def test_pareto_leaves_out_what_is_not_finite_and_names_the_arms():
    points = [
        ParetoPoint(label="reference", cost=100.0, loss=3.5, series=0),
        ParetoPoint(label="winner", cost=1_000.0, loss=3.4, series=1),
        ParetoPoint(label="other", cost=500.0, loss=3.6),
        ParetoPoint(label="broken", cost=float("nan"), loss=3.6),
    ]
    (axes,) = pareto(points, cost_label="FLOPs").axes
    assert axes.get_xscale() == "log"
    assert len(axes.lines) == 1 + 3
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [100.0, 1_000.0])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["reference", "winner"]


def test_lanes_keep_leaves_apart_and_parents_between_their_children():
    nodes = [LineageNode(id="r", parent=None, iteration=0)]
    nodes += [LineageNode(id=f"n{i}", parent="r" if i < 4 else f"n{i // 3}", iteration=i) for i in range(1, 40)]
    lanes = lineage_lanes(nodes)
    assert lanes.keys() == {node.id for node in nodes}
    parents = {node.parent for node in nodes}
    leaves = [lanes[node.id] for node in nodes if node.id not in parents]
    assert sorted(leaves) == list(range(len(leaves)))
    for name in parents - {None}:
        below = [lanes[node.id] for node in nodes if node.parent == name]
        assert min(below) <= lanes[name] <= max(below)


def test_circles_and_orphans_are_roots():
    nodes = [
        LineageNode(id="a", parent="b", iteration=1),
        LineageNode(id="b", parent="a", iteration=1),
        LineageNode(id="c", parent="c", iteration=2),
        LineageNode(id="d", parent="lost", iteration=0),
    ]
    assert lineage_lanes(nodes).keys() == {"a", "b", "c", "d"}
    assert lineage_tree(nodes, path=["a", "b"]).axes


def test_the_tree_tells_measured_failed_and_not_evaluated_apart():
    nodes = [
        LineageNode(id="r", parent=None, iteration=0, fitness=1.0),
        LineageNode(id="f", parent="r", iteration=1, failed=True),
        LineageNode(id="n", parent="r", iteration=2),
        LineageNode(id="w", parent="r", iteration=3, fitness=1.1),
    ]
    (axes,) = lineage_tree(nodes, path=["r", "w"], labels={"w": "winner"}).axes
    dots = {int(line.get_xdata()[0]): line for line in axes.lines if len(line.get_xdata()) == 1}
    assert dots[1].get_marker() == "x"
    assert dots[2].get_markerfacecolor() != dots[2].get_color()
    assert dots[3].get_color() == dots[0].get_color() == SERIES[1]
    strong = [line for line in axes.lines if len(line.get_xdata()) > 1 and line.get_color() == SERIES[1]]
    assert len(strong) == 1
    assert [text.get_text() for text in axes.texts] == ["winner"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: learning_curves([]),
        lambda: paired_differences([]),
        lambda: forest_plot([]),
        lambda: scaling_fit([]),
        lambda: pareto([], cost_label="FLOPs"),
        lambda: lineage_tree([]),
    ],
    ids=["curves", "differences", "forest", "scaling", "pareto", "lineage"],
)
def test_nothing_to_draw_is_no_error(draw):
    assert svg_text(draw(), name="empty", label="nothing").startswith("<svg")


def _difference_svg(label: str = "a", name: str = "one") -> str:
    return svg_text(paired_differences([DifferenceRow(label=label, differences=[0.1, -0.1])]), name=name, label=label)


def test_svg_is_the_same_twice_and_its_ids_belong_to_the_figure():
    assert _difference_svg() == _difference_svg()
    one, two = ({*re.findall(r'\bid="([^"]+)"', _difference_svg(name=name))} for name in ("one", "two"))
    assert one
    assert not one & two
    targets = re.findall(r'(?:href="#|url\(#)([^")]+)', _difference_svg(name="one"))
    assert targets
    assert set(targets) <= one


def test_svg_follows_the_page_and_needs_nothing_from_outside():
    text = _difference_svg()
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img"
    assert root.get("aria-label") == "a"
    assert "currentColor" in text
    assert f"var(--series-1, {SERIES[1]})" in text
    for banned in ("style=", "<style", "<metadata", "<image", "http://www.w3.org/1999", "DOCTYPE", "font-family"):
        assert banned not in text, banned


def test_labels_of_strangers_are_only_text():
    text = _difference_svg("$\\frac{<script>alert(1)\x00\u202e")
    assert "<script" not in text
    assert "$\\frac{&lt;script&gt;alert(1)" in text
    assert "\x00" not in text
    ElementTree.fromstring(text)


def test_text_is_cleaned_and_cut():
    assert clean_text("a\x00b\ud800\u202ec\n") == "a\ufffdb\ufffd\ufffdc\n"
    assert clean_text("x" * 10, 5) == "xxxx\N{HORIZONTAL ELLIPSIS}"
    assert clean_text("مرحبا") == "مرحبا"


def test_matplotlib_is_left_as_it_was():
    before = dict(matplotlib.rcParams)
    _difference_svg()
    assert dict(matplotlib.rcParams) == before

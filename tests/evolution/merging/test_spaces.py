"""Vectors become recipes: parameter space, layer gates, and paths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from evolution.merging.candidate import MergeCandidate, copy_of, load_candidate
from evolution.merging.dataflow import DataFlow
from evolution.merging.dataflow import Path as Flow
from evolution.merging.layer_gate import LayerGate
from evolution.merging.merge_plan import merge_to
from evolution.merging.parameter_space import ParameterSpace
from frameworks.merging.merge_error import MergeError


def space(**more: object) -> ParameterSpace:
    given = {"merge_method": "ties", "base_model": "b", "models": ("x", "y"), "n_layers": 12, "groups": 3}
    return ParameterSpace(**(given | more))  # type: ignore[arg-type]


def test_a_vector_gives_each_model_and_group_its_weight_and_density() -> None:
    chosen = space(weight_range=(0.0, 2.0))
    assert chosen.n_dimensions == 12
    vector = np.linspace(0.0, 1.0, 12)
    recipe = chosen.decode(vector)
    assert recipe.models is not None
    for row, section in enumerate(recipe.models):
        for layer in (0, 3, 4, 7, 8, 11):
            place = row * 3 + layer // 4
            tensor = f"model.layers.{layer}.mlp.weight"
            assert recipe.weight(section, tensor, 0.0) == pytest.approx(2 * vector[place], abs=1e-6)
            assert recipe.density(section, tensor, 0.0) == pytest.approx(max(0.02, vector[6 + place]), abs=1e-6)
        assert recipe.weight(section, "model.embed_tokens.weight", 0.0) == pytest.approx(2 * vector[row * 3], abs=1e-6)
        assert recipe.weight(section, "model.norm.weight", 0.0) == pytest.approx(2 * vector[row * 3 + 2], abs=1e-6)


def test_methods_without_density_search_weights_only() -> None:
    assert space(merge_method="task_arithmetic").n_dimensions == 6
    assert space(densities=False).n_dimensions == 6
    recipe = space(densities=False, density=0.3, groups=1).decode(np.array([0.1, 0.9]))
    assert recipe.models is not None
    assert recipe.models[1].parameters.density == 0.3


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"merge_method": "passthrough"}, "no weights to evolve"),
        ({"merge_method": "tise"}, "did you mean 'ties'"),
        ({"groups": 13}, "1 to 12"),
        ({"base_model": None}, "needs a base model"),
    ],
)
def test_a_space_that_cannot_be_is_refused(more: dict[str, object], part: str) -> None:
    with pytest.raises(MergeError, match=part):
        space(**more)
    with pytest.raises(MergeError, match="expected 12 finite values"):
        space().decode(np.full(12, np.nan))


def test_a_layer_gate_averages_the_open_layers(tmp_path: Path, write_model: Callable[..., Path]) -> None:
    names = tuple(str(write_model(tmp_path / name, seed)) for seed, name in enumerate(("a", "b", "c")))
    gate = LayerGate(models=names, n_layers=2)
    indicators = np.array([[1, 0], [1, 1], [0, 1]])
    scales = np.array([[0.5, 1.0], [1.5, 2.0], [1.0, 1.0]])
    merge_to(gate.recipe(indicators, scales), tmp_path / "out")
    out, a, b, c = (load_file(Path(path) / "model.safetensors") for path in (tmp_path / "out", *names))
    for name, tensor in out.items():
        if "layers.0" in name:
            expected = (0.5 * a[name] + 1.5 * b[name]) / 2
        elif "layers.1" in name:
            expected = (2 * b[name] + c[name]) / 3
        else:
            expected = (a[name] + b[name] + c[name]) / 3
        torch.testing.assert_close(tensor, expected)


def test_gates_come_from_a_vector_and_a_shut_layer_is_a_failure() -> None:
    gate = LayerGate(models=("a", "b"), n_layers=3, min_layers_per_model=1, scale_range=(0.0, 2.0))
    vector = np.array([0.9, 0.1, 0.2, 0.1, 0.3, 0.2, 0.5, 0.5, 0.5, 0.0, 1.0, 0.25])
    indicators, scales = gate.gates(vector)
    assert indicators.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert scales.tolist() == [[1, 1, 1], [0, 2, 0.5]]
    with pytest.raises(MergeError, match="no model takes part at layer 2"):
        gate.decode(vector)
    with pytest.raises(MergeError, match="nothing to search"):
        LayerGate(models=("a",), n_layers=1, optimize_indicators=False, optimize_scaling=False)
    with pytest.raises(MergeError, match="scales have the shape"):
        gate.recipe(np.ones((2, 3)), np.ones((2, 2)))


@pytest.mark.parametrize(("w_mode", "scales"), [("full", 64), ("per_hop", 16), ("none", 0)])
def test_the_start_of_a_data_flow_is_the_first_model(w_mode: str, scales: int) -> None:
    flow = DataFlow(n_models=2, n_layers=4, repetitions=2, w_mode=w_mode)  # type: ignore[arg-type]
    assert flow.n_dimensions == 16 + scales
    assert flow.decode(flow.start_vector()) == Flow(layers=(0, 1, 2, 3), scales=(1.0, 1.0, 1.0, 1.0))


def test_a_path_walks_the_row_in_order_with_the_scale_of_each_hop() -> None:
    flow = DataFlow(n_models=2, n_layers=3, repetitions=2, w_mode="full", scale_range=(0.0, 2.0))
    vector = np.zeros(flow.n_dimensions)
    vector[[0, 4, 7]] = 0.9  # layer 0 again is an end; 4; and 7 is layer 1 in the second repetition
    table = np.linspace(0.0, 1.0, 36)
    vector[12:] = table
    path = flow.decode(vector)
    assert path.layers == (0, 4, 1, 2)
    expected = [1.0, *(2 * table[a * 6 + b] for a, b in ((0, 4), (4, 1), (1, 2)))]
    assert path.scales == pytest.approx(expected, abs=1e-6)
    shortest = flow.decode(np.zeros(flow.n_dimensions))
    assert shortest.layers == (0, 2)
    with pytest.raises(MergeError, match="w_mode is 'half'"):
        DataFlow(n_models=1, n_layers=2, w_mode="half")  # type: ignore[arg-type]


def test_a_candidate_is_written_and_read_back(tmp_path: Path) -> None:
    plain = MergeCandidate(recipes=(copy_of("a"),))
    flow = MergeCandidate(recipes=(copy_of("a"), copy_of("b")), path=Flow(layers=(0, 3, 1), scales=(1.0, 0.9, 1.1)))
    for candidate in (plain, flow):
        candidate.export(tmp_path / "winner.yaml")
        again = load_candidate(tmp_path / "winner.yaml")
        assert again == candidate
        assert again.identity == candidate.identity
    assert plain.identity != flow.identity
    (tmp_path / "bad.yaml").write_text("path: 3\nrecipes: []\n")
    with pytest.raises(MergeError, match="a data flow has recipes and a path"):
        load_candidate(tmp_path / "bad.yaml")

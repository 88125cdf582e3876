"""The specification's DFS, called `layer_gate`: which model's layers take part at each layer position, and how much.

    merged[j] = sum_i I[i, j] W[i, j] p[i, j] / sum_i I[i, j] W[i, j]

I is 0 or 1 and W a scale, both for M models and r layers, so T = M r indicators. The depth stays what
it was; this is not the data-flow space of the paper (see `dataflow`). The result is a linear recipe
with one weight a layer and model, so it is merged, cached and exported like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evolution.merging.recipe import MergeRecipe
from frameworks.merging.merge_error import MergeError

Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LayerGate:
    """Gates over fixed models.

    Attributes:
        models: M names.
        n_layers: r.
        min_layers_per_model: a model with fewer gates open gets those with the largest raw values opened too.
        optimize_indicators: whether I is part of the vector; else all gates are open.
        optimize_scaling: whether W is part of the vector; else it is 1.
        scale_range: what 0 and 1 stand for as a scale.
    """

    models: tuple[str, ...]
    n_layers: int
    min_layers_per_model: int = 0
    optimize_indicators: bool = True
    optimize_scaling: bool = True
    scale_range: tuple[float, float] = (0.05, 1.5)

    def __post_init__(self) -> None:
        """Raises: MergeError: nothing to optimise, or more layers a model than there are."""
        if not (self.optimize_indicators or self.optimize_scaling):
            raise MergeError("layer_gate has nothing to search: set optimize_indicators or optimize_scaling")
        if not 0 <= self.min_layers_per_model <= self.n_layers:
            raise MergeError(
                f"min_layers_per_model is {self.min_layers_per_model}; the models have {self.n_layers} layers"
            )

    @property
    def n_dimensions(self) -> int:
        """Length of a vector: indicators, then scales; models outermost."""
        return len(self.models) * self.n_layers * (self.optimize_indicators + self.optimize_scaling)

    def gates(self, vector: Matrix) -> tuple[Matrix, Matrix]:
        """I (M, r) of zeros and ones and W (M, r), from a vector in [0, 1]; above one half a gate is open."""
        shape = (len(self.models), self.n_layers)
        size = shape[0] * shape[1]
        if len(vector) != self.n_dimensions or not np.isfinite(vector).all():
            raise MergeError(f"expected {self.n_dimensions} finite values, got {vector!r:.80}")
        raw = vector[:size].reshape(shape) if self.optimize_indicators else np.ones(shape)
        indicators = (raw > 0.5).astype(np.float64)
        for row in range(shape[0]):
            missing = self.min_layers_per_model - int(indicators[row].sum())
            if missing > 0:
                closed = [layer for layer in np.argsort(-raw[row], kind="stable") if not indicators[row, layer]]
                indicators[row, closed[:missing]] = 1.0
        low, high = self.scale_range
        scales = low + (high - low) * vector[-size:].reshape(shape) if self.optimize_scaling else np.ones(shape)
        return indicators, scales

    def decode(self, vector: Matrix) -> MergeRecipe:
        """The recipe of a vector; raises as `recipe` does."""
        return self.recipe(*self.gates(vector))

    def recipe(self, indicators: Matrix, scales: Matrix) -> MergeRecipe:
        """The linear recipe of gates I (M, r) and scales W (M, r); tensors outside the layers are averaged.

        Raises:
            MergeError: wrong shapes, or a layer position at which nothing is open.
        """
        shape = (len(self.models), self.n_layers)
        for name, matrix in (("indicators", indicators), ("scales", scales)):
            if np.shape(matrix) != shape:
                raise MergeError(f"{name} have the shape {np.shape(matrix)}; {shape} (models, layers) is needed")
        products = np.asarray(indicators) * np.asarray(scales)
        shut = [layer for layer in range(self.n_layers) if abs(products[:, layer].sum()) < 1e-8]
        if shut:
            raise MergeError(f"no model takes part at layer {shut[0]}; open at least one gate at every layer")
        sections = [
            {"model": name, "parameters": {"weight": _by_layer(products[row].tolist())}}
            for row, name in enumerate(self.models)
        ]
        return MergeRecipe.model_validate({"merge_method": "linear", "models": sections})


def _by_layer(products: Sequence[float]) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = [
        {"filter": f"layers.{layer}.", "value": round(value, 6)} for layer, value in enumerate(products)
    ]
    return [*entries, {"value": 1.0}]

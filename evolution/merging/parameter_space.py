"""Merge weights and densities as a vector: what CMA-ES searches in parameter space (PS).

A vector in [0, 1]^n becomes a recipe: for each model and each group of layers one weight and, where the method reads
one, a density. Embeddings belong to the first group, final norm and head to the last. The recipe is an
ordinary one, so a winner is exported as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolution.merging.recipe import MergeRecipe
from frameworks.merging.merge_error import MergeError
from frameworks.merging.method import method

Vector = NDArray[np.float64]
LEAST_DENSITY = 0.02


@dataclass(frozen=True, kw_only=True)
class ParameterSpace:
    """Recipes of one method over fixed models.

    Attributes:
        merge_method: its name.
        base_model: the base; None where the method needs none.
        models: the sources.
        n_layers: of every model.
        groups: groups of layers with values of their own; 1 is one value a model.
        weight_range: what 0 and 1 stand for as a weight.
        densities: whether densities are searched; else they are `density`.
        density: the fixed density.
        parameters: further parameters of the recipe.
        seed: of random masks, the same for every candidate.

    Raises:
        MergeError: unknown method, more groups than layers, or a method without weights.
    """

    merge_method: str
    base_model: str | None
    models: tuple[str, ...]
    n_layers: int
    groups: int = 1
    weight_range: tuple[float, float] = (0.0, 1.0)
    densities: bool = True
    density: float = 0.5
    parameters: tuple[tuple[str, Any], ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises: see the class."""
        chosen = method(self.merge_method)
        if chosen.family in ("stock", "copy", "sce") or chosen.name == "slerp":
            raise MergeError(
                f"{chosen.name} has no weights to evolve; use linear, nuslerp, karcher or a method of task vectors"
            )
        if not 1 <= self.groups <= max(1, self.n_layers):
            raise MergeError(
                f"groups is {self.groups}; the models have {self.n_layers} layers, so 1 to {self.n_layers}"
            )
        if chosen.needs_base and self.base_model is None:
            raise MergeError(f"{chosen.name} needs a base model; set base_model")

    @property
    def searches_density(self) -> bool:
        """Whether densities are part of the vector."""
        return self.densities and method(self.merge_method).uses_density

    @property
    def n_dimensions(self) -> int:
        """Length of the vector: weights, then densities; models outermost."""
        return len(self.models) * self.groups * (2 if self.searches_density else 1)

    def decode(self, vector: Vector) -> MergeRecipe:
        """The recipe that a vector stands for.

        Raises:
            MergeError: another length, or a value that is not finite.
        """
        if len(vector) != self.n_dimensions or not np.isfinite(vector).all():
            raise MergeError(f"expected {self.n_dimensions} finite values, got {vector!r:.80}")
        count = len(self.models) * self.groups
        low, high = self.weight_range
        weights = (low + (high - low) * vector[:count]).reshape(len(self.models), self.groups)
        densities = np.full(weights.shape, self.density)
        if self.searches_density:
            densities = np.clip(vector[count:], LEAST_DENSITY, 1.0).reshape(weights.shape)
        sections = [
            {
                "model": name,
                "parameters": {"weight": self._value(weights[row])}
                | ({"density": self._value(densities[row])} if method(self.merge_method).uses_density else {}),
            }
            for row, name in enumerate(self.models)
        ]
        content: dict[str, Any] = {"merge_method": self.merge_method, "models": sections, "seed": self.seed}
        if self.base_model is not None:
            content["base_model"] = self.base_model
        if self.parameters:
            content["parameters"] = dict(self.parameters)
        return MergeRecipe.model_validate(content)

    def _value(self, by_group: Vector) -> float | list[dict[str, Any]]:
        numbers = [round(float(value), 6) for value in by_group]
        if self.groups == 1:
            return numbers[0]
        entries: list[dict[str, Any]] = [{"filter": "embed", "value": numbers[0]}]
        for layer in range(self.n_layers):
            entries.append({"filter": f"layers.{layer}.", "value": numbers[self.group_of(layer)]})
        return [*entries, {"value": numbers[-1]}]

    def group_of(self, layer: int) -> int:
        """The group a layer belongs to: equal runs of layers."""
        return layer * self.groups // self.n_layers

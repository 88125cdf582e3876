"""A candidate of a merge search: a recipe, alone or with a path through the models it and others make."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import yaml

from evolution.ledger.payload import canonical_json
from evolution.merging.dataflow import Path, dataflow_model
from evolution.merging.recipe import MergeRecipe, parse_recipe, read_yaml
from evolution.merging.resident_model import SourceModels
from frameworks.merging.merge_error import MergeError


@dataclass(frozen=True, kw_only=True)
class MergeCandidate:
    """What is evaluated.

    Attributes:
        recipes: one recipe a model of the pool; without a path exactly one.
        path: a way through the layers of the pool; None: the one recipe is the model.
    """

    recipes: tuple[MergeRecipe, ...]
    path: Path | None = None

    @property
    def content(self) -> dict[str, Any]:
        """The candidate as plain JSON."""
        recipes = [recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True) for recipe in self.recipes]
        if self.path is None:
            return {"recipes": recipes}
        return {"recipes": recipes, "path": {"layers": list(self.path.layers), "scales": list(self.path.scales)}}

    @property
    def identity(self) -> str:
        """sha256 of the content: equal recipes are one candidate."""
        return hashlib.sha256(canonical_json(self.content).encode()).hexdigest()

    def export(self, file: FilePath) -> None:
        """Write it as YAML: a plain recipe where there is no path, so that `evoscale merge` takes it."""
        text = (
            self.recipes[0].to_yaml()
            if self.path is None
            else yaml.safe_dump(self.content, sort_keys=False, allow_unicode=True)
        )
        file.write_text(text, encoding="utf-8")


def load_candidate(file: FilePath) -> MergeCandidate:
    """Read what `MergeCandidate.export` wrote.

    Raises:
        MergeError: neither a recipe nor recipes with a path.
    """
    content = read_yaml(file)
    if "path" not in content:
        return MergeCandidate(recipes=(parse_recipe(content, str(file)),))
    path = content["path"]
    try:
        recipes = tuple(parse_recipe(entry, f"{file}: recipes") for entry in content["recipes"])
        layers = tuple(int(layer) for layer in path["layers"])
        scales = tuple(float(scale) for scale in path["scales"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, MergeError):
            raise
        raise MergeError(f"{file}: a data flow has recipes and a path of layers and scales; {error!r}") from None
    return MergeCandidate(recipes=recipes, path=Path(layers=layers, scales=scales))


def copy_of(model: str) -> MergeRecipe:
    """The recipe of a model as it is."""
    return MergeRecipe.model_validate({"merge_method": "passthrough", "models": [{"model": model}]})


class CandidateModels:
    """Makes candidates runnable: one resident model for recipes, shared layers for paths.

    Args:
        sources: the opened models.
    """

    def __init__(self, sources: SourceModels) -> None:
        self._sources = sources
        self._resident: Any = None
        self._pool: dict[str, Any] = {}

    def model(self, candidate: MergeCandidate) -> Any:
        """A transformers model; valid until the next call.

        Raises:
            MergeError: the merge fails.
        """
        if candidate.path is not None:
            return dataflow_model([self._kept(recipe) for recipe in candidate.recipes], candidate.path)
        if self._resident is None:
            self._resident = self._sources.load(self._sources.names[0])
        self._sources.write(candidate.recipes[0], self._resident)
        return self._resident

    def _kept(self, recipe: MergeRecipe) -> Any:
        """A model of the pool, kept: a data flow writes no weights."""
        key = MergeCandidate(recipes=(recipe,)).identity
        if key not in self._pool:
            self._pool[key] = self._sources.merged_model(recipe)
        return self._pool[key]

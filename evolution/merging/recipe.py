"""A merge recipe: a YAML file in the style that mergekit made common, validated before anything is read.

    merge_method: ties
    base_model: path/to/base
    models:
      - model: path/to/one
        parameters: {weight: 0.5, density: [0.4, 0.6]}      # a list is a gradient over the layers
      - model: path/to/two
        parameters:
          weight: [{filter: mlp, value: 0.7}, {value: 0.3}]  # the first filter found in the tensor's name
    parameters: {normalize: true, lambda: 1.0}
    dtype: float32

`slices` (with `layer_range`) takes the place of `models` where the layers are to be stacked anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evolution.config import explain_validation
from frameworks.merging.merge_error import MergeError
from frameworks.merging.method import MergeSettings, Method, Rescale, SignElection, method

Dtype = Literal["float32", "float16", "bfloat16", "float64"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Conditional(_Section):
    """A value for the tensors whose name holds `filter`; without a filter for all."""

    filter: str | None = None
    value: float | list[float]


Value = float | list[float] | list[Conditional]


class ModelParameters(_Section):
    """What may differ between the models of a merge; None leaves it to the recipe's own parameters."""

    weight: Value | None = None
    density: Value | None = None


class ModelSection(_Section):
    """One model of a merge."""

    model: str = Field(min_length=1)
    """Folder with config.json and .safetensors files, one .safetensors file, or owner/name on the hub."""
    parameters: ModelParameters = ModelParameters()


class SliceSource(ModelSection):
    """Some layers of one model."""

    layer_range: tuple[int, int]
    """First layer, and the one after the last."""

    @model_validator(mode="after")
    def _range_is_one(self) -> SliceSource:
        first, end = self.layer_range
        if not 0 <= first < end:
            raise ValueError(f"layer_range is {list(self.layer_range)}; it is [first, one after the last]")
        return self


class Slice(_Section):
    """Layers of the result, merged from equally many layers of each source."""

    sources: list[SliceSource] = Field(min_length=1)

    @model_validator(mode="after")
    def _equal_lengths(self) -> Slice:
        lengths = {end - first for first, end in (source.layer_range for source in self.sources)}
        if len(lengths) > 1:
            raise ValueError(f"the layer ranges of one slice have the lengths {sorted(lengths)}; they must be equal")
        return self


class RecipeParameters(ModelParameters):
    """Settings of the method; see `frameworks.merging.method.MergeSettings`."""

    normalize: bool | None = None
    lambda_: float = Field(1.0, alias="lambda")
    rescale: bool | Rescale | None = None
    """true: the method's usual kind; false: none."""
    sign_election: SignElection = "weighted"
    gamma: float = 0.01
    epsilon: float = 0.15
    t: Value = 0.5
    scale: float = 1.0
    """Factor of passthrough."""
    max_iterations: int = Field(100, ge=1)


class MergeRecipe(_Section):
    """A whole recipe; see the module."""

    merge_method: str
    base_model: str | None = None
    models: list[ModelSection] | None = None
    slices: list[Slice] | None = None
    parameters: RecipeParameters = RecipeParameters()
    dtype: Dtype | None = None
    """What the result is stored in; None: what the base (or first model) is stored in."""
    tokenizer_source: str | None = None
    """`base`, or a model of the recipe: whose tokenizer the result gets. Needed only where tokenizers differ."""
    seed: int = Field(0, ge=0)
    """Of random masks."""

    @model_validator(mode="after")
    def _one_list(self) -> MergeRecipe:
        if (self.models is None) == (self.slices is None):
            raise ValueError("a recipe has either 'models' or 'slices'")
        if not (self.models or self.slices):
            raise ValueError("a recipe needs at least one model")
        return self

    @property
    def method(self) -> Method:
        """The merge method.

        Raises:
            MergeError: unknown.
        """
        return method(self.merge_method)

    def model_names(self) -> list[str]:
        """Every model of the recipe once, the base first."""
        named = [self.base_model] if self.base_model else []
        named += [section.model for section in self.models or []]
        named += [source.model for part in self.slices or [] for source in part.sources]
        return list(dict.fromkeys(named))

    def settings(self, tensor: str, depth: float) -> MergeSettings:
        """The method's settings for one tensor.

        Raises:
            MergeError: a value outside its range.
        """
        chosen, given = self.method, self.parameters
        rescale = given.rescale
        if rescale is None or rescale is True:
            rescale = chosen.rescale
        elif rescale is False:
            rescale = "none"
        return MergeSettings(
            normalize=chosen.normalize if given.normalize is None else given.normalize,
            scale=given.scale if chosen.family == "copy" else given.lambda_,
            rescale=rescale,
            sign_election=given.sign_election,
            gamma=given.gamma,
            epsilon=given.epsilon,
            t=value_at(given.t, tensor, depth),
            max_iterations=given.max_iterations,
        )

    def weight(self, section: ModelSection, tensor: str, depth: float) -> float:
        """The weight of a model for one tensor: its own, the recipe's, or 1."""
        return _first(section.parameters.weight, self.parameters.weight, tensor, depth)

    def density(self, section: ModelSection, tensor: str, depth: float) -> float:
        """The density of a model for one tensor: its own, the recipe's, or 1."""
        return _first(section.parameters.density, self.parameters.density, tensor, depth)

    def to_yaml(self) -> str:
        """The recipe as a file that `load_recipe` reads back."""
        plain = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def value_at(value: Value, tensor: str, depth: float) -> float:
    """A parameter's value for one tensor.

    Args:
        value: a number; a gradient, interpolated linearly over the depth; or filters with values.
        tensor: its name.
        depth: 0 at the first layer and before it, 1 at the last layer and after it.

    Raises:
        MergeError: no filter matches, or an empty gradient.
    """
    if isinstance(value, float | int):
        return float(value)
    if not value:
        raise MergeError(f"a parameter for tensor {tensor!r} is an empty list; give a number or at least one entry")
    if isinstance(value[0], Conditional):
        for entry in value:
            if isinstance(entry, Conditional) and (
                entry.filter is None or entry.filter == "*" or entry.filter in tensor
            ):
                return value_at(entry.value, tensor, depth)
        filters = ", ".join(repr(entry.filter) for entry in value if isinstance(entry, Conditional))
        raise MergeError(
            f"no filter matches tensor {tensor!r}; the filters are {filters}; add an entry without a filter"
        )
    steps = [float(entry) for entry in value if not isinstance(entry, Conditional)]
    place = depth * (len(steps) - 1)
    below = min(int(place), len(steps) - 1)
    above = min(below + 1, len(steps) - 1)
    return steps[below] + (steps[above] - steps[below]) * (place - below)


def _first(own: Value | None, common: Value | None, tensor: str, depth: float) -> float:
    for value in (own, common):
        if value is not None:
            return value_at(value, tensor, depth)
    return 1.0


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        MergeError: unreadable, not YAML, or not a mapping.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MergeError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise MergeError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise MergeError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(loaded, dict):
        raise MergeError(f"{path}: expected keys and values, got {type(loaded).__name__}")
    return loaded


def parse_recipe(content: dict[str, Any], source: str) -> MergeRecipe:
    """A recipe from its content.

    Args:
        content: as in the YAML file.
        source: named in errors.

    Raises:
        MergeError: an unknown key, a value that is not allowed, or an unknown method.
    """
    try:
        recipe = MergeRecipe.model_validate(content)
    except ValidationError as error:
        raise MergeError(explain_validation(error, MergeRecipe, source)) from None
    _check_ranges(recipe, source)
    return recipe


def load_recipe(path: Path) -> MergeRecipe:
    """Read and validate a recipe file; raises as `read_yaml` and `parse_recipe` do."""
    return parse_recipe(read_yaml(path), str(path))


def _numbers(value: Value | None) -> list[float]:
    if value is None:
        return []
    if isinstance(value, float | int):
        return [float(value)]
    return [
        number for entry in value for number in (_numbers(entry.value) if isinstance(entry, Conditional) else [entry])
    ]


def _check_ranges(recipe: MergeRecipe, source: str) -> None:
    """Refuse, before any file is opened, what the methods would refuse later."""
    chosen = recipe.method
    if not isinstance(recipe.parameters.t, list):
        recipe.settings("", 0.0)
    sections: list[ModelSection] = list(recipe.models or [])
    sections += [entry for part in recipe.slices or [] for entry in part.sources]
    if chosen.uses_density:
        for section in sections:
            for density in _numbers(section.parameters.density) + _numbers(recipe.parameters.density):
                if not 0.0 < density <= 1.0:
                    raise MergeError(f"{source}: the density of {section.model} is {density:g}; it must lie in (0, 1]")
                if (
                    chosen.sparsifier == "rank"
                    and not recipe.parameters.epsilon < density < 1 - recipe.parameters.epsilon
                ):
                    raise MergeError(
                        f"{source}: the density of {section.model} is {density:g} and epsilon "
                        f"{recipe.parameters.epsilon:g}; density - epsilon and density + epsilon must lie in (0, 1)"
                    )
    if chosen.needs_base and recipe.base_model is None:
        raise MergeError(f"{source}: {chosen.name} needs a base model; set base_model")

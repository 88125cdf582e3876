"""What a recipe means tensor by tensor, and the streaming merge of it.

A plan is made from headers alone. Merging then reads, for one tensor after another, pieces
of each source, so that memory holds at most one tensor's magnitudes whatever the number of sources.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.keyed_random import numpy_generator
from evolution.merging.checkpoint import Checkpoint, find_model, layer_of, renumbered
from evolution.merging.checkpoint_writer import CheckpointWriter, check_target
from evolution.merging.compatibility import check_compatible
from evolution.merging.recipe import MergeRecipe, ModelSection
from frameworks.merging.flat_tensor import FlatTensor
from frameworks.merging.merge_error import MergeError
from frameworks.merging.merge_tensor import merge_pieces
from frameworks.merging.method import MergeSettings
from frameworks.merging.top_magnitudes import CutCache

Progress = Callable[[str, int, int], None]
"""(tensor, elements done, elements in all)"""

_STORED = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


@dataclass(frozen=True, kw_only=True)
class TensorPlan:
    """How one tensor of the result is made.

    Attributes:
        name: in the result.
        base: the base's tensor.
        models: names of the sources.
        sources: their tensors.
        weights: one a source.
        densities: one a source.
        settings: of the method.
        dtype: it is stored in.
    """

    name: str
    base: FlatTensor | None
    models: tuple[str, ...]
    sources: tuple[FlatTensor, ...]
    weights: tuple[float, ...]
    densities: tuple[float, ...]
    settings: MergeSettings
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return self.sources[0].shape


def plan_merge(recipe: MergeRecipe, tensors: Mapping[str, Mapping[str, FlatTensor]]) -> list[TensorPlan]:
    """One plan for each tensor of the result, in a fixed order.

    Args:
        recipe: what is asked for.
        tensors: model -> name -> tensor; every model of the recipe.

    Raises:
        MergeError: a parameter has no value for a tensor, or the number of models does not fit the method.
    """
    if recipe.slices is not None:
        return _plan_slices(recipe, tensors)
    sections = _without_base(recipe, recipe.models or [])
    names = list(tensors[sections[0].model])
    last = max((layer_of(name) or 0 for name in names), default=0)
    return [
        _plan(
            recipe, tensors, name, [(section, name) for section in sections], name, _depth(layer_of(name), name, last)
        )
        for name in names
    ]


def _without_base(recipe: MergeRecipe, models: list[ModelSection]) -> list[ModelSection]:
    """The sources in order: methods that work on changes leave out the base, slerp puts it first."""
    chosen = recipe.method
    if recipe.base_model is not None:
        if chosen.name == "slerp":
            others = [section for section in models if section.model != recipe.base_model]
            models = [ModelSection(model=recipe.base_model), *others]
        elif chosen.needs_base:
            models = [section for section in models if section.model != recipe.base_model]
    if len(models) < chosen.least or (chosen.most is not None and len(models) > chosen.most):
        allowed = f"at least {chosen.least}" if chosen.most is None else f"{chosen.least} to {chosen.most}"
        beside = " beside the base" if chosen.needs_base else ""
        raise MergeError(f"{chosen.name} got {len(models)} models{beside}; it takes {allowed}")
    return list(models)


def _depth(layer: int | None, name: str, last: int) -> float:
    if layer is None:
        return 0.0 if "embed" in name or "wte" in name else 1.0
    return layer / last if last else 0.0


def _plan(
    recipe: MergeRecipe,
    tensors: Mapping[str, Mapping[str, FlatTensor]],
    name: str,
    parts: list[tuple[ModelSection, str]],
    base_name: str,
    depth: float,
) -> TensorPlan:
    chosen = recipe.method
    takes_base = recipe.base_model is not None and (chosen.needs_base or chosen.name == "nuslerp")
    base = tensors[recipe.base_model][base_name] if takes_base and recipe.base_model is not None else None
    sources = tuple(tensors[section.model][source_name] for section, source_name in parts)
    stored = _STORED[recipe.dtype] if recipe.dtype else (base or sources[0]).dtype
    return TensorPlan(
        name=name,
        base=base,
        models=tuple(section.model for section, _ in parts),
        sources=sources,
        weights=tuple(recipe.weight(section, name, depth) for section, _ in parts),
        densities=tuple(recipe.density(section, name, depth) for section, _ in parts),
        settings=recipe.settings(name, depth),
        dtype=stored,
    )


def _plan_slices(recipe: MergeRecipe, tensors: Mapping[str, Mapping[str, FlatTensor]]) -> list[TensorPlan]:
    slices = recipe.slices or []
    for part in slices:
        _without_base(recipe, list(part.sources))
    total = sum(part.sources[0].layer_range[1] - part.sources[0].layer_range[0] for part in slices)
    plans: list[TensorPlan] = []
    ends: dict[bool, list[TensorPlan]] = {True: [], False: []}
    names = list(tensors[slices[0].sources[0].model])
    for name in names:
        if layer_of(name) is None:  # embeddings belong to the first slice, norm and head to the last
            first = _depth(None, name, 0) == 0.0
            sources = slices[0 if first else -1].sources
            sections = _without_base(recipe, list(sources))
            ends[first].append(
                _plan(recipe, tensors, name, [(section, name) for section in sections], name, 0.0 if first else 1.0)
            )
    layer = 0
    for part in slices:
        first_layers = {source.model: source.layer_range[0] for source in part.sources}
        length = part.sources[0].layer_range[1] - part.sources[0].layer_range[0]
        sections = _without_base(recipe, list(part.sources))
        for step in range(length):
            plans += _plan_layer(recipe, tensors, sections, first_layers, step, layer, total)
            layer += 1
    return [*ends[True], *plans, *ends[False]]


def _plan_layer(
    recipe: MergeRecipe,
    tensors: Mapping[str, Mapping[str, FlatTensor]],
    sections: list[ModelSection],
    first_layers: Mapping[str, int],
    step: int,
    layer: int,
    total: int,
) -> list[TensorPlan]:
    lead = sections[0].model
    own = first_layers.get(lead, layer) + step
    plans = []
    for name in tensors[lead]:
        if layer_of(name) != own:
            continue
        parts = [(section, renumbered(name, first_layers.get(section.model, own) + step)) for section in sections]
        base_name = renumbered(name, first_layers.get(recipe.base_model or "", own - step) + step)
        depth = layer / (total - 1) if total > 1 else 0.0
        plans.append(_plan(recipe, tensors, renumbered(name, layer), parts, base_name, depth))
    return plans


def mask_generator(seed: int, tensor: str, models: tuple[str, ...]) -> Callable[[int, int], np.random.Generator]:
    """(source, piece) -> the generator of that piece's mask, keyed by seed, model, tensor and piece."""
    return lambda source, piece: numpy_generator("merge mask", seed, models[source], tensor, piece)


def merged(recipe: MergeRecipe, plan: TensorPlan, cuts: CutCache | None = None) -> Iterator[Tensor]:
    """The pieces of one merged tensor; raises as `merge_pieces` does."""
    yield from merge_pieces(
        plan.name,
        plan.base,
        plan.sources,
        plan.weights,
        plan.densities,
        mask_generator(recipe.seed, plan.name, plan.models),
        method=recipe.method,
        settings=plan.settings,
        cuts=cuts,
        models=plan.models,
    )


def merge_to(recipe: MergeRecipe, target: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Merge models on disk into a new folder: weights, config, tokenizer and the recipe.

    Args:
        recipe: what to merge; model names are paths or names on the hub.
        target: the new folder.
        progress: called after every tensor.

    Returns:
        `tensors` and `parameters`: how many were written; `target`.

    Raises:
        MergeError: anything wrong with the request, before any weight is read; or weights that are not finite, and
            then nothing is left behind.
    """
    check_target(target)
    with ExitStack() as stack:
        checkpoints = {name: stack.enter_context(Checkpoint(find_model(name))) for name in recipe.model_names()}
        check_compatible(recipe, checkpoints)
        plans = plan_merge(recipe, {name: checkpoint.tensors for name, checkpoint in checkpoints.items()})
        total = sum(math.prod(plan.shape) for plan in plans)
        writer = stack.enter_context(CheckpointWriter(target, {plan.name: (plan.shape, plan.dtype) for plan in plans}))
        done = 0
        for plan in plans:
            writer.write(plan.name, merged(recipe, plan))
            done += math.prod(plan.shape)
            if progress is not None:
                progress(plan.name, done, total)
        _write_companions(recipe, checkpoints, writer, plans)
    return {"tensors": len(plans), "parameters": total, "target": str(target)}


def _write_companions(
    recipe: MergeRecipe, checkpoints: Mapping[str, Checkpoint], writer: CheckpointWriter, plans: list[TensorPlan]
) -> None:
    first = next(iter(checkpoints))
    source = recipe.tokenizer_source
    with_tokenizer = first if source in (None, "base") else str(source)
    for file in checkpoints[with_tokenizer].tokenizer_files():
        writer.copy(file)
    config = dict(checkpoints[first].config)
    if config:
        layers = 1 + max((layer_of(plan.name) or 0 for plan in plans if layer_of(plan.name) is not None), default=-1)
        if recipe.slices is not None and "num_hidden_layers" in config:
            config["num_hidden_layers"] = layers
            config.pop("layer_types", None)
        for key in ("dtype", "torch_dtype"):
            if key in config:
                config[key] = str(plans[0].dtype).removeprefix("torch.")
        writer.write_text("config.json", json.dumps(config, indent=2) + "\n")
    writer.write_text("merge_recipe.yaml", recipe.to_yaml())

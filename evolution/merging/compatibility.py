"""Whether models can be merged at all, decided from headers and configs before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping

from evolution.merging.checkpoint import Checkpoint, layer_of
from evolution.merging.recipe import MergeRecipe
from frameworks.merging.merge_error import MergeError

_SAME_IN_CONFIG = (
    ("architectures", "architecture"),
    ("model_type", "model type"),
    ("hidden_size", "width"),
    ("vocab_size", "vocabulary"),
    ("num_attention_heads", "number of heads"),
    ("num_key_value_heads", "number of key-value heads"),
)


def check_compatible(recipe: MergeRecipe, checkpoints: Mapping[str, Checkpoint]) -> None:
    """Refuse models that cannot be merged.

    Args:
        recipe: what is asked for.
        checkpoints: name in the recipe -> its opened checkpoint.

    Raises:
        MergeError: they differ in architecture, vocabulary, layers, tensors, shapes or tokenizer; or a layer range
            lies outside its model.
    """
    named = list(checkpoints.items())
    reference_name, reference = named[0]
    for name, checkpoint in named[1:]:
        for key, shown in _SAME_IN_CONFIG:
            one, other = reference.config.get(key), checkpoint.config.get(key)
            if reference.config and checkpoint.config and one != other:
                raise MergeError(f"{shown} differs: {reference_name} has {one!r}, {name} has {other!r}")
        if recipe.slices is None and reference.n_layers != checkpoint.n_layers:
            raise MergeError(
                f"the number of layers differs: {reference_name} has {reference.n_layers}, {name} has "
                f"{checkpoint.n_layers}; use 'slices' with layer_range to choose layers"
            )
        _check_tensors(reference_name, reference, name, checkpoint, by_layer=recipe.slices is not None)
    _check_tokenizers(recipe, checkpoints)
    for part in recipe.slices or []:
        for source in part.sources:
            layers = checkpoints[source.model].n_layers
            if source.layer_range[1] > layers:
                raise MergeError(
                    f"layer_range {list(source.layer_range)} of {source.model} reaches beyond its {layers} layers"
                )


def _check_tensors(one_name: str, one: Checkpoint, other_name: str, other: Checkpoint, *, by_layer: bool) -> None:
    ours = {name for name in one.tensors if not by_layer or layer_of(name) is None}
    theirs = {name for name in other.tensors if not by_layer or layer_of(name) is None}
    if ours != theirs:
        lacking, owner, odd = (
            (other_name, one_name, sorted(ours - theirs)[0])
            if ours - theirs
            else (one_name, other_name, sorted(theirs - ours)[0])
        )
        raise MergeError(f"{lacking} lacks tensor {odd!r}, which {owner} has; only equal architectures can be merged")
    for name in sorted(ours):
        shapes = one.tensors[name].shape, other.tensors[name].shape
        if shapes[0] != shapes[1]:
            raise MergeError(
                f"tensor {name!r} has the shape {list(shapes[0])} in {one_name} and {list(shapes[1])} in {other_name}; "
                "they must be equal"
            )


def _check_tokenizers(recipe: MergeRecipe, checkpoints: Mapping[str, Checkpoint]) -> None:
    source = recipe.tokenizer_source
    if source is not None:
        if source == "base" and recipe.base_model is None:
            raise MergeError("tokenizer_source is 'base', but the recipe has no base_model")
        if source != "base" and source not in checkpoints:
            raise MergeError(
                f"tokenizer_source {source!r} is not in the recipe; allowed: base, {', '.join(checkpoints)}"
            )
        return
    seen: dict[str, str] = {}
    for name, checkpoint in checkpoints.items():
        if checkpoint.vocabulary_hash is not None:
            seen.setdefault(checkpoint.vocabulary_hash, name)
    if len(seen) > 1:
        raise MergeError(
            f"the tokenizers of {' and '.join(list(seen.values())[:2])} differ; one id would stand for two tokens; "
            "set tokenizer_source if you know that they agree where it matters"
        )

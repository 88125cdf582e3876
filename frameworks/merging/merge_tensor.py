"""Merge one tensor with any method: the contract of all operators, whole or in pieces."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from frameworks.merging import combination, sce, task_vectors
from frameworks.merging.flat_tensor import FlatTensor, InMemory, compute_dtype, spans
from frameworks.merging.merge_error import MergeError
from frameworks.merging.method import MergeSettings, Method
from frameworks.merging.sparsify import MaskGenerator
from frameworks.merging.top_magnitudes import CutCache


def merge_tensor(
    name: str,
    base: Tensor | None,
    tensors: Sequence[Tensor],
    weights: Sequence[float],
    densities: Sequence[float],
    rng: MaskGenerator,
    *,
    method: Method,
    settings: MergeSettings,
) -> Tensor:
    """Merge tensors that are in memory.

    Args:
        name: of the tensor, for errors.
        base: the common base's tensor; None where the method needs none.
        tensors: N tensors of one shape.
        weights: N factors.
        densities: N shares in (0, 1]; read by methods that sparsify.
        rng: (source, piece) -> generator of masks.
        method: from `frameworks.merging.method`.
        settings: its settings.

    Returns:
        The merged tensor, in the shape and dtype of the base, or of the first tensor without one.

    Raises:
        MergeError: shapes differ, a needed base is missing, a wrong number of tensors, a density
            outside (0, 1], or a result that is not finite.
    """
    like = base if base is not None else tensors[0]
    pieces = merge_pieces(
        name,
        None if base is None else InMemory(base),
        [InMemory(tensor) for tensor in tensors],
        weights,
        densities,
        rng,
        method=method,
        settings=settings,
    )
    return torch.cat(list(pieces)).to(like.dtype).reshape(like.shape) if like.numel() else like.clone()


def merge_pieces(
    name: str,
    base: FlatTensor | None,
    sources: Sequence[FlatTensor],
    weights: Sequence[float],
    densities: Sequence[float],
    rng: MaskGenerator,
    *,
    method: Method,
    settings: MergeSettings,
    cuts: CutCache | None = None,
    models: Sequence[object] | None = None,
) -> Iterator[Tensor]:
    """As `merge_tensor`, on tensors read in pieces; yields pieces (n,) in the dtype that is computed in.

    Args:
        cuts: remembers thresholds from call to call; its entries are told apart by `models` and `name`.
        models: names of the sources for `cuts`.
    """
    _check(name, base, sources, weights, densities, method)
    dtype = compute_dtype(*sources, *([] if base is None else [base]))
    for piece in _pieces(name, base, sources, weights, densities, rng, method, settings, cuts, models, dtype):
        if not math.isfinite(float(piece.sum())) and not bool(piece.isfinite().all()):
            raise MergeError(
                f"tensor {name!r}: {method.name} gives values that are not finite; a source holds NaN or infinity"
            )
        yield piece


def _pieces(
    name: str,
    base: FlatTensor | None,
    sources: Sequence[FlatTensor],
    weights: Sequence[float],
    densities: Sequence[float],
    rng: MaskGenerator,
    method: Method,
    settings: MergeSettings,
    cuts: CutCache | None,
    models: Sequence[object] | None,
    dtype: torch.dtype,
) -> Iterator[Tensor]:
    if method.family == "task" and base is not None:
        return task_vectors.merged_pieces(
            base,
            sources,
            weights,
            densities,
            name=name,
            models=models if models is not None else range(len(sources)),
            method=method,
            settings=settings,
            rng=rng,
            cuts=cuts if cuts is not None else CutCache(sorted_elements=0),
            dtype=dtype,
        )
    if method.family == "sce" and base is not None:
        return sce.merged_pieces(base, sources, densities[0], settings, dtype)
    if method.family == "copy":
        return (sources[0].read(start, stop).to(dtype) * settings.scale for start, stop in spans(sources[0]))
    return combination.combined_pieces(sources, *_coefficients(base, sources, weights, method, settings, dtype), dtype)


def _coefficients(
    base: FlatTensor | None,
    sources: Sequence[FlatTensor],
    weights: Sequence[float],
    method: Method,
    settings: MergeSettings,
    dtype: torch.dtype,
) -> tuple[list[float], FlatTensor | None, float]:
    """Factors of the sources, and the base with its factor."""
    if method.name == "linear":
        return combination.linear_coefficients(weights, settings), None, 0.0
    if method.name == "slerp":
        gram = combination.gram_matrix(sources, None, dtype)
        return list(combination.slerp_coefficients(gram, settings.t)), None, 0.0
    if method.name == "karcher":
        gram = combination.gram_matrix(sources, None, dtype)
        return combination.karcher_coefficients(gram, weights, settings), None, 0.0
    gram = combination.gram_matrix(sources, base, dtype)
    if method.name == "model_stock":
        ratio = combination.stock_ratio(gram)
        return [ratio / len(sources)] * len(sources), base, 1.0 - ratio
    factors = list(combination.nuslerp_coefficients(gram, weights))
    return factors, base, 1.0 - sum(factors)


def _check(
    name: str,
    base: FlatTensor | None,
    sources: Sequence[FlatTensor],
    weights: Sequence[float],
    densities: Sequence[float],
    method: Method,
) -> None:
    n = len(sources)
    if method.needs_base and base is None:
        raise MergeError(f"{method.name} needs a base model; set base_model")
    if n < method.least or (method.most is not None and n > method.most):
        allowed = f"at least {method.least}" if method.most is None else f"{method.least} to {method.most}"
        raise MergeError(f"{method.name} got {n} models beside the base; it takes {allowed}")
    if len(weights) != n or len(densities) != n:
        raise MergeError(f"{n} models, but {len(weights)} weights and {len(densities)} densities")
    shape = sources[0].shape
    for source in [*sources[1:], *([] if base is None else [base])]:
        if source.shape != shape:
            raise MergeError(
                f"tensor {name!r} has the shapes {list(shape)} and {list(source.shape)}; they must be equal"
            )
    if not all(math.isfinite(weight) for weight in weights):
        raise MergeError(f"tensor {name!r}: the weights are {list(weights)}; they must be finite")
    if method.uses_density:
        for density in densities:
            if not 0.0 < density <= 1.0:
                raise MergeError(f"tensor {name!r}: the density is {density:g}; it must lie in (0, 1]")

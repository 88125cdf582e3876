"""Methods that are a linear combination of the inputs: linear, slerp, nuslerp, model_stock, karcher.

All the geometry they need is in the Gram matrix of inner products, so the tensors are read twice in
pieces and never held whole: once for the Gram matrix, once for the combination. The
iteration of karcher runs on coefficients alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frameworks.merging.flat_tensor import FlatTensor, spans
from frameworks.merging.merge_error import MergeError
from frameworks.merging.method import MergeSettings

Matrix = NDArray[np.float64]

COLINEAR = 0.9995
"""slerp goes straight where the cosine is above this."""
_TINY = 1e-8
_SMALL_SQUARE = 1e-20
_KARCHER_TOLERANCE = 1e-9


def gram_matrix(sources: Sequence[FlatTensor], base: FlatTensor | None, dtype: torch.dtype) -> Matrix:
    """Inner products of all x_i (of x_i - base with a base): (N, N) in fp64.

    Products of a piece are summed in `dtype` and pieces in fp64; where squares over- or underflow
    that, everything is summed in fp64.
    """
    gram = _gram(sources, base, dtype)
    diagonal = np.diag(gram)
    if dtype != torch.float64 and not (np.isfinite(gram).all() and (diagonal > _SMALL_SQUARE).all()):
        gram = _gram(sources, base, torch.float64)
    return gram


def _gram(sources: Sequence[FlatTensor], base: FlatTensor | None, dtype: torch.dtype) -> Matrix:
    n = len(sources)
    gram = np.zeros((n, n))
    for start, stop in spans(sources[0]):
        rows = [source.read(start, stop).to(dtype) for source in sources]
        if base is not None:
            origin = base.read(start, stop).to(dtype)
            rows = [row - origin for row in rows]
        for i in range(n):
            for j in range(i, n):
                gram[i, j] += float(rows[i] @ rows[j])
    return np.triu(gram) + np.triu(gram, 1).T


def combined_pieces(
    sources: Sequence[FlatTensor],
    coefficients: Sequence[float],
    base: FlatTensor | None,
    base_coefficient: float,
    dtype: torch.dtype,
) -> Iterator[Tensor]:
    """sum(c_i x_i) + c_0 base in pieces (n,), in `dtype`."""
    parts = list(zip(sources, coefficients, strict=True))
    if base is not None and base_coefficient != 0.0:
        parts.append((base, base_coefficient))
    for start, stop in spans(sources[0]):
        first, factor = parts[0]
        merged = first.read(start, stop).to(dtype).mul(factor)
        for source, coefficient in parts[1:]:
            merged.add_(source.read(start, stop).to(dtype), alpha=coefficient)
        yield merged


def linear_coefficients(weights: Sequence[float], settings: MergeSettings) -> list[float]:
    """w / sum(w), or w as they are without `normalize`.

    Raises:
        MergeError: the weights sum to zero and cannot be normalised.
    """
    total = sum(weights)
    if not settings.normalize:
        return list(weights)
    if abs(total) < _TINY:
        raise MergeError(f"the weights {list(weights)} sum to {total:g}; normalize needs a sum other than 0")
    return [weight / total for weight in weights]


def _great_circle(cosine: float, t: float) -> tuple[float, float]:
    theta = math.acos(max(-1.0, min(1.0, cosine)))
    sine = math.sin(theta)
    return math.sin((1.0 - t) * theta) / sine, math.sin(t * theta) / sine


def slerp_coefficients(gram: Matrix, t: float) -> tuple[float, float]:
    """Factors of both tensors at position t of the arc between them (Shoemake 1985); straight if colinear."""
    lengths = math.sqrt(gram[0, 0]) * math.sqrt(gram[1, 1])
    cosine = gram[0, 1] / lengths if lengths > 0 else 1.0
    # antipodal tensors have no arc either
    if abs(cosine) > COLINEAR:
        return 1.0 - t, t
    return _great_circle(cosine, t)


def nuslerp_coefficients(gram: Matrix, weights: Sequence[float]) -> tuple[float, float]:
    """As slerp, with t = w_1 / (w_0 + w_1), straight only where the arc has no length.

    Raises:
        MergeError: the weights sum to zero.
    """
    total = sum(weights)
    if abs(total) < _TINY:
        raise MergeError(f"the weights {list(weights)} sum to {total:g}; nuslerp needs a sum other than 0")
    t = weights[1] / total
    lengths = math.sqrt(gram[0, 0]) * math.sqrt(gram[1, 1])
    cosine = gram[0, 1] / lengths if lengths > 0 else 1.0
    if 1.0 - cosine * cosine < 1e-12:
        return 1.0 - t, t
    return _great_circle(cosine, t)


def stock_ratio(gram: Matrix) -> float:
    """t = N c / (1 + (N - 1) c), c the mean cosine of all pairs of changes (Jang et al. 2024, equation 6)."""
    n = len(gram)
    lengths = np.sqrt(np.diag(gram))
    cosines = [
        gram[i, j] / (lengths[i] * lengths[j]) if lengths[i] > 0 and lengths[j] > 0 else 0.0
        for i in range(n)
        for j in range(i + 1, n)
    ]
    mean = float(np.clip(np.mean(cosines), -1.0, 1.0))
    denominator = 1.0 + (n - 1) * mean
    return n * mean / denominator if abs(denominator) > _TINY else 0.0


def karcher_coefficients(gram: Matrix, weights: Sequence[float], settings: MergeSettings) -> list[float]:
    """Factors of the weighted mean on the sphere, scaled to the weighted mean length.

    The mean is mu = sum(c_i u_i) with u_i = x_i / |x_i|. Each step moves mu along the weighted mean of the
    tangents towards every u_i (Karcher 1977); all of it stays in the span of the u_i.

    Raises:
        MergeError: the weights sum to zero.
    """
    total = sum(weights)
    if abs(total) < _TINY:
        raise MergeError(f"the weights {list(weights)} sum to {total:g}; karcher needs a sum other than 0")
    share = np.asarray(weights, dtype=np.float64) / total
    lengths = np.sqrt(np.diag(gram))
    if not (lengths > 0).any():
        return [0.0] * len(share)
    inverse = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    cosines = gram * np.outer(inverse, inverse)
    point = _unit(share.copy(), cosines)
    for _ in range(settings.max_iterations):
        cosine = np.clip(cosines @ point, -1.0, 1.0)
        angle = np.arccos(cosine)
        stretch = np.where(np.sin(angle) > 1e-12, angle / np.maximum(np.sin(angle), 1e-12), 1.0)
        pull = share * np.where(lengths > 0, stretch, 0.0)
        step = pull - (pull @ cosine) * point
        length = math.sqrt(max(0.0, float(step @ cosines @ step)))
        if length < _KARCHER_TOLERANCE:
            break
        point = _unit(math.cos(length) * point + math.sin(length) / length * step, cosines)
    return [float(value) for value in point * inverse * float(share @ lengths)]


def _unit(coefficients: Matrix, cosines: Matrix) -> Matrix:
    square = float(coefficients @ cosines @ coefficients)
    if square < 1e-24:  # the unit vectors cancel: any of them is as good, the first is taken
        coefficients = np.zeros_like(coefficients)
        coefficients[int(np.argmax(np.diag(cosines)))] = 1.0
        return coefficients
    return coefficients / math.sqrt(square)

"""The oracle of every merge method: whole tensors, fp64, one sort where a sort is meant.

Nothing here is shared with the fast forms but the definition. `uniforms` takes the place of the masks'
generator: an element is kept where its number is below its keep probability.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from frameworks.merging.method import MergeSettings, Method

Row = NDArray[np.float64]


def naive_merge(
    base: Row | None,
    tensors: Sequence[Row],
    weights: Sequence[float],
    densities: Sequence[float],
    *,
    method: Method,
    settings: MergeSettings,
    uniforms: Sequence[Row] = (),
) -> Row:
    """The merged array, fp64, in the shape of the inputs.

    Args:
        base: the base's array, where the method needs one.
        tensors: N arrays of one shape.
        weights: N factors.
        densities: N shares in (0, 1].
        method: from `frameworks.merging.method`.
        settings: its settings.
        uniforms: N arrays of numbers in [0, 1), for methods that drop at random.
    """
    x = [np.asarray(tensor, dtype=np.float64) for tensor in tensors]
    w = [float(weight) for weight in weights]
    if method.name == "linear":
        total = sum(w) if settings.normalize else 1.0
        return np.asarray(sum(a * b for a, b in zip(w, x, strict=True)) / total)
    if method.name == "passthrough":
        return x[0] * settings.scale
    if method.name == "slerp":
        return _slerp(x[0], x[1], settings.t, straight=lambda cosine: abs(cosine) > 0.9995)
    if method.name == "nuslerp":
        origin = np.zeros_like(x[0]) if base is None else np.asarray(base, dtype=np.float64)
        t = w[1] / (w[0] + w[1])
        return origin + _slerp(x[0] - origin, x[1] - origin, t, straight=lambda cosine: 1 - cosine**2 < 1e-12)
    if method.name == "karcher":
        return _karcher(x, w, settings)
    assert base is not None
    b = np.asarray(base, dtype=np.float64)
    d = [a - b for a in x]
    if method.name == "model_stock":
        return _stock(b, x, d)
    if method.name == "sce":
        return b + settings.scale * _sce(d, densities[0])
    kept = [
        _sparsify(d[i], densities[i], method, settings, uniforms[i] if method.is_random else None)
        for i in range(len(x))
    ]
    return b + settings.scale * _combine(kept, w, method, settings)


def _length(a: Row) -> float:
    return math.sqrt(float((a * a).sum()))


def _slerp(a: Row, b: Row, t: float, straight: Callable[[float], bool]) -> Row:
    lengths = _length(a) * _length(b)
    cosine = float((a * b).sum()) / lengths if lengths else 1.0
    if straight(cosine):
        return (1 - t) * a + t * b
    theta = math.acos(min(1.0, max(-1.0, cosine)))
    return (math.sin((1 - t) * theta) * a + math.sin(t * theta) * b) / math.sin(theta)


def _karcher(x: list[Row], w: list[float], settings: MergeSettings) -> Row:
    share = [a / sum(w) for a in w]
    lengths = [_length(a) for a in x]
    if max(lengths) == 0:
        return np.zeros_like(x[0])
    units = [a / r if r else np.zeros_like(a) for a, r in zip(x, lengths, strict=True)]
    point = np.asarray(sum(s * u for s, u in zip(share, units, strict=True)))
    if _length(point) < 1e-12:
        point = units[int(np.argmax([_length(u) for u in units]))]
    point = point / _length(point)
    for _ in range(settings.max_iterations):
        step = np.zeros_like(point)
        for s, u, r in zip(share, units, lengths, strict=True):
            if r:
                cosine = min(1.0, max(-1.0, float((u * point).sum())))
                angle = math.acos(cosine)
                step += s * (angle / math.sin(angle) if math.sin(angle) > 1e-12 else 1.0) * (u - cosine * point)
        if _length(step) < 1e-9:
            break
        point = math.cos(_length(step)) * point + math.sin(_length(step)) * step / _length(step)
        point = point / _length(point)
    return point * sum(s * r for s, r in zip(share, lengths, strict=True))


def _stock(b: Row, x: list[Row], d: list[Row]) -> Row:
    n = len(x)
    cosines = []
    for i in range(n):
        for j in range(i + 1, n):
            lengths = _length(d[i]) * _length(d[j])
            cosines.append(float((d[i] * d[j]).sum()) / lengths if lengths else 0.0)
    c = min(1.0, max(-1.0, sum(cosines) / len(cosines)))
    t = n * c / (1 + (n - 1) * c) if abs(1 + (n - 1) * c) > 1e-8 else 0.0
    return np.asarray(t * sum(x) / n + (1 - t) * b)


def _sce(d: list[Row], density: float) -> Row:
    stack = np.stack([a.reshape(-1) for a in d])
    if density < 1:
        variance = stack.var(axis=0)
        k = int(np.count_nonzero(variance) * density)
        keep = np.zeros(stack.shape[1], dtype=bool)
        keep[np.argsort(-variance, kind="stable")[:k]] = True
        stack = stack * keep
    energy = (stack**2).mean(axis=1)
    weights = energy / energy.sum() if energy.sum() > 0 else np.full(len(d), 1 / len(d))
    merged = np.zeros(stack.shape[1])
    for e in range(stack.shape[1]):
        sign = 1 if stack[:, e].sum() >= 0 else -1
        agree = [i for i in range(len(d)) if stack[i, e] * sign > 0]
        share = sum(weights[i] for i in agree)
        merged[e] = sum(weights[i] * stack[i, e] for i in agree) / max(share, 1e-6)
    return merged.reshape(d[0].shape)


def _rank_probabilities(d: Row, density: float, epsilon: float) -> Row:
    rows = np.abs(d).reshape(d.shape[0] if d.ndim > 1 else 1, -1)
    probabilities = np.full(rows.shape, density)
    n = rows.shape[1]
    if n > 1:
        for row, out in zip(rows, probabilities, strict=True):
            by_size = sorted((value, place) for place, value in enumerate(row.tolist()))
            for rank, (_, place) in enumerate(by_size):
                out[place] = density - epsilon + 2 * epsilon * rank / (n - 1)
    return probabilities.reshape(d.shape)


def _sparsify(d: Row, density: float, method: Method, settings: MergeSettings, uniform: Row | None) -> Row:
    n = d.size
    k = max(1, int(density * n))
    largest_first = np.argsort(-np.abs(d).reshape(-1), kind="stable")
    keep = np.ones(n, dtype=bool)
    if method.sparsifier == "magnitude":
        keep[largest_first[k:]] = False
    elif method.sparsifier == "outliers":
        top = int(settings.gamma * n)
        top = max(0, min(top, n - k))
        keep[largest_first[:top]] = False
        keep[largest_first[top + k :]] = False
    elif method.sparsifier in ("random", "rank") and uniform is not None:
        chance = (
            np.full(d.shape, density)
            if method.sparsifier == "random"
            else _rank_probabilities(d, density, settings.epsilon)
        )
        if method.sparsifier == "rank" or density < 1:
            keep = (uniform < chance).reshape(-1)
    kept = np.where(keep.reshape(d.shape), d, 0.0)
    if method.is_random and (method.sparsifier == "rank" or density < 1):
        if settings.rescale == "density":
            kept = kept / density
        elif settings.rescale == "l1" and np.abs(kept).sum() > 0:
            kept = kept * (np.abs(d).sum() / np.abs(kept).sum())
    return kept


def _combine(kept: list[Row], w: list[float], method: Method, settings: MergeSettings) -> Row:
    weighted = [a * b for a, b in zip(w, kept, strict=True)]
    if not method.consensus:
        total = sum(w)
        return np.asarray(sum(weighted) / (total if settings.normalize and abs(total) >= 1e-8 else 1.0))
    ballot = np.asarray(sum(weighted if settings.sign_election == "weighted" else kept))
    elected = np.where(ballot >= 0, 1.0, -1.0)
    masks = [np.sign(a) == elected for a in weighted]
    merged = np.asarray(sum(a * m for a, m in zip(weighted, masks, strict=True)))
    if settings.normalize:
        divisor = np.asarray(sum(a * m for a, m in zip(w, masks, strict=True)))
        merged = merged / np.where(np.abs(divisor) < 1e-8, 1.0, divisor)
    return merged

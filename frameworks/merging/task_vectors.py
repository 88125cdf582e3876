"""The task-arithmetic family: base + lambda * sum(W_i m_i) with W_i = w_i sparsify(d_i), d_i = x_i - base.

With consensus, m_i = [sign W_i == sign(sum W)], a sum of zero counting as positive (Yadav et al. 2023,
section 3, step 2). The sum over agreeing elements is then the sum of the positive parts or of the
negative parts of all W_i, so two running sums replace one mask a source. `normalize` divides by
the weights that took part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from frameworks.merging.flat_tensor import FlatTensor, spans
from frameworks.merging.method import MergeSettings, Method
from frameworks.merging.sparsify import Change, MaskGenerator, Sparsifier
from frameworks.merging.top_magnitudes import CutCache

LEAST_DIVISOR = 1e-8
"""Divisors nearer to zero than this are taken as one: nothing took part, or the weights cancel."""


def merged_pieces(
    base: FlatTensor,
    sources: Sequence[FlatTensor],
    weights: Sequence[float],
    densities: Sequence[float],
    *,
    name: str,
    models: Sequence[object],
    method: Method,
    settings: MergeSettings,
    rng: MaskGenerator,
    cuts: CutCache,
    dtype: torch.dtype,
) -> Iterator[Tensor]:
    """The merged tensor in pieces (n,), in `dtype`.

    Args:
        base: the common base.
        sources: N tensors of its shape.
        weights: N factors w_i.
        densities: N shares that are kept.
        name: of the tensor.
        models: N names that tell the sources apart in `cuts`.
        method: of the family `task`.
        settings: see `MergeSettings`.
        rng: masks.
        cuts: where thresholds are remembered.
        dtype: what to compute in.
    """
    pieces = spans(base, whole_rows=method.sparsifier == "rank")
    sparse = [
        Sparsifier(
            Change(source=source, base=base, index=index, model=models[index], dtype=dtype),
            name,
            densities[index],
            method,
            settings,
            rng,
            cuts,
            pieces,
        )
        for index, source in enumerate(sources)
    ]
    combine: Callable[[list[Tensor]], Tensor] = (
        _Consensus(weights, settings) if method.consensus else _Plain(weights, settings)
    )
    for number, (start, stop) in enumerate(pieces):
        merged = combine([part.kept(number) for part in sparse])
        yield base.read(start, stop).to(dtype).add(merged, alpha=settings.scale)


class _Plain:
    """sum(w d), divided by sum(w) with `normalize`."""

    def __init__(self, weights: Sequence[float], settings: MergeSettings) -> None:
        total = sum(weights)
        self._factor = 1.0 / total if settings.normalize and abs(total) >= LEAST_DIVISOR else 1.0
        self._weights = weights

    def __call__(self, deltas: list[Tensor]) -> Tensor:
        merged = deltas[0].mul(self._weights[0] * self._factor)
        for weight, delta in zip(self._weights[1:], deltas[1:], strict=True):
            merged.add_(delta, alpha=weight * self._factor)
        return merged


class _Consensus:
    """Sums the elements whose sign is the elected one."""

    def __init__(self, weights: Sequence[float], settings: MergeSettings) -> None:
        self._weights = weights
        self._normalize = settings.normalize
        self._unweighted = settings.sign_election == "unweighted"

    def __call__(self, deltas: list[Tensor]) -> Tensor:
        elected = sum(deltas[1:], start=deltas[0].clone()) if self._unweighted else None
        positive = torch.zeros_like(deltas[0])
        negative = torch.zeros_like(deltas[0])
        divisors = (torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])) if self._normalize else None
        for weight, delta in zip(self._weights, deltas, strict=True):
            if divisors is not None:
                # weights of the elements with W > 0 and with W < 0; d and W have opposite signs where w < 0
                above, below = divisors if weight >= 0 else (divisors[1], divisors[0])
                if weight:
                    above.add_(torch.heaviside(delta, _zero(delta)), alpha=weight)
                    below.add_(torch.heaviside(-delta, _zero(delta)), alpha=weight)
            weighted = delta.mul_(weight)
            positive.add_(weighted.clamp_min(0.0))
            negative.add_(weighted.clamp_max(0.0))
        up = (elected if elected is not None else positive + negative) >= 0
        merged = torch.where(up, positive, negative)
        if divisors is None:
            return merged
        divisor = torch.where(up, divisors[0], divisors[1])
        return merged.div_(divisor.masked_fill_(divisor.abs() < LEAST_DIVISOR, 1.0))


def _zero(like: Tensor) -> Tensor:
    return torch.zeros((), dtype=like.dtype)

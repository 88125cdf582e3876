"""SCE: select by variance, calculate weights, erase minority signs (Wan et al. 2024, arXiv 2408.07990).

1. Keep the share `density` of elements whose changes vary most between the sources; elements that do not vary at
   all are never kept, and the share is counted over the others.
2. The weight of a source is the mean square of its kept changes, over the sum of all sources'.
3. Elements whose sign is not that of the sum are left out; the rest is averaged with those weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from frameworks.merging.flat_tensor import FlatTensor, numel, spans
from frameworks.merging.method import MergeSettings
from frameworks.merging.top_magnitudes import KEEP_NOTHING, Cut, Selector, cut_of

_TINY = 1e-6


def merged_pieces(
    base: FlatTensor,
    sources: Sequence[FlatTensor],
    density: float,
    settings: MergeSettings,
    dtype: torch.dtype,
) -> Iterator[Tensor]:
    """The merged tensor in pieces (n,), in `dtype`.

    Args:
        base: the common base.
        sources: N tensors of its shape.
        density: share of the varying elements that is kept; 1 keeps all, varying or not.
        settings: `scale` is read.
        dtype: what to compute in.
    """
    pieces = spans(base)

    def changes(start: int, stop: int) -> Tensor:  # (N, n)
        origin = base.read(start, stop).to(dtype)
        return torch.stack([source.read(start, stop).to(dtype) - origin for source in sources])

    cut = _variance_cut(changes, pieces, numel(base), density) if density < 1.0 else None
    squares = torch.zeros(len(sources), dtype=torch.float64)
    selector = Selector(cut) if cut is not None else None
    for start, stop in pieces:
        squares += _selected(changes(start, stop), selector).square().sum(1, dtype=torch.float64)
    energy = squares / numel(base)
    total = float(energy.sum())
    weights = energy / total if total > 0.0 else torch.full_like(energy, 1.0 / len(sources))
    column = weights.to(dtype).unsqueeze(1)  # (N, 1)
    selector = Selector(cut) if cut is not None else None
    for start, stop in pieces:
        deltas = _selected(changes(start, stop), selector)
        up = deltas.sum(0) >= 0
        agree = torch.where(up, deltas > 0, deltas < 0)
        shares = column * agree
        merged = (shares * deltas).sum(0) / shares.sum(0).clamp_min(_TINY)
        yield base.read(start, stop).to(dtype).add(merged, alpha=settings.scale)


def _variance(deltas: Tensor) -> Tensor:
    """Variance over the sources, (N, n) to (n,), in fp64 so that equal spreads stay equal."""
    exact = deltas.double()
    return (exact - exact.mean(0)).square().mean(0)


def _variance_cut(
    changes: Callable[[int, int], Tensor], pieces: list[tuple[int, int]], size: int, density: float
) -> Cut:
    row = np.empty(size)
    for start, stop in pieces:
        row[start:stop] = _variance(changes(start, stop)).numpy()
    k = int(np.count_nonzero(row) * density)
    return cut_of(row, k) if k else KEEP_NOTHING


def _selected(deltas: Tensor, selector: Selector | None) -> Tensor:
    if selector is None:
        return deltas
    return deltas * selector.keep(_variance(deltas))

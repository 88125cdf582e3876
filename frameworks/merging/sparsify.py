"""Which elements of each change d = x - base a task method keeps, and what they are multiplied by.

A sparsifier sees the pieces of one source in order. Random masks come from a generator keyed by
(source, piece), so a mask is the same however often, and in whatever order, it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frameworks.merging.flat_tensor import FlatTensor, numel, row_length, spans
from frameworks.merging.merge_error import MergeError
from frameworks.merging.method import MergeSettings, Method
from frameworks.merging.top_magnitudes import CutCache, Magnitudes, Selector, count_of

MaskGenerator = Callable[[int, int], np.random.Generator]
"""(source index, piece index) -> a fresh generator; the caller keys it by seed, model and tensor too."""

_DRAWS = float(1 << 32)


@dataclass(frozen=True, kw_only=True)
class Change:
    """The change d = x - base of one source, read in pieces.

    Attributes:
        source: x.
        base: what it is measured from; None stands for zero.
        index: of the source, for its masks.
        model: names the source in the cache of cuts.
        dtype: what to compute in.
    """

    source: FlatTensor
    base: FlatTensor
    index: int
    model: object
    dtype: torch.dtype

    def read(self, start: int, stop: int) -> Tensor:
        """A fresh tensor (stop - start,)."""
        return self.source.read(start, stop).to(self.dtype) - self.base.read(start, stop).to(self.dtype)

    def magnitudes(self, name: str) -> Magnitudes:
        """|d| of the whole tensor, a fresh row (n,).

        Raises:
            MergeError: it holds NaN or infinity, which have no rank.
        """
        row = np.empty(numel(self.source), dtype=np.float64 if self.dtype == torch.float64 else np.float32)
        for start, stop in spans(self.source):
            piece = self.read(start, stop)
            torch.abs(piece, out=torch.from_numpy(row[start:stop]))
        if not math.isfinite(float(row.max(initial=0.0))):
            raise MergeError(f"tensor {name!r} of source {self.index + 1} differs from the base by NaN or infinity")
        return row


class Sparsifier:
    """Drops elements of one source's change.

    Args:
        change: of the source.
        name: of the tensor.
        density: share that is kept, in (0, 1].
        method: which elements: its `sparsifier`.
        settings: gamma, epsilon and rescale are read.
        rng: masks.
        cuts: where thresholds are remembered.
        pieces: the pieces the change will be asked for, in order.
    """

    def __init__(
        self,
        change: Change,
        name: str,
        density: float,
        method: Method,
        settings: MergeSettings,
        rng: MaskGenerator,
        cuts: CutCache,
        pieces: list[tuple[int, int]],
    ) -> None:
        self._change = change
        self._density = density
        self._kind = method.sparsifier if density < 1.0 or method.sparsifier in ("outliers", "rank") else "none"
        self._settings = settings
        self._rng = rng
        self._row = row_length(change.source)
        self._pieces = pieces
        self._factor = 1.0
        self._lower: Selector | None = None
        self._upper: Selector | None = None
        if self._kind in ("magnitude", "outliers"):
            self._find_cuts(name, cuts)
        if method.is_random and self._kind != "none":
            self._factor = self._rescale()

    def _find_cuts(self, name: str, cuts: CutCache) -> None:
        size = numel(self._change.source)
        kept = count_of(self._density, size)
        dropped_above = 0
        if self._kind == "outliers":
            dropped_above = int(self._settings.gamma * size)
            dropped_above -= max(0, dropped_above + kept - size)

        def cut(k: int) -> Selector:
            return Selector(cuts.cut(self._change.model, name, k, lambda: self._change.magnitudes(name)))

        self._lower = cut(kept + dropped_above)
        self._upper = cut(dropped_above) if dropped_above else None

    def _rescale(self) -> float:
        if self._settings.rescale == "density":
            return 1.0 / self._density
        if self._settings.rescale == "none":
            return 1.0
        before = after = 0.0
        for number, (start, stop) in enumerate(self._pieces):
            delta = self._change.read(start, stop)
            before += float(delta.abs().sum(dtype=torch.float64))
            after += float((delta * self._random_mask(delta, number)).abs().sum(dtype=torch.float64))
        return before / after if after > 0.0 else 1.0

    def _random_mask(self, delta: Tensor, number: int) -> Tensor:
        draws = self._rng(self._change.index, number).integers(0, 1 << 32, size=len(delta), dtype=np.uint32)
        if self._kind == "random":
            # whole numbers below a bound are those below the bound rounded up
            return torch.from_numpy(draws < np.uint32(min(_DRAWS - 1, math.ceil(self._density * _DRAWS))))
        return torch.from_numpy(draws < self._keep_probabilities(delta) * _DRAWS)

    def _keep_probabilities(self, delta: Tensor) -> NDArray[np.float64]:
        """density - epsilon .. density + epsilon by rank of magnitude in each row; ties by position."""
        rows = delta.abs().numpy().reshape(-1, self._row)
        ranks = np.empty(rows.shape, dtype=np.float64)
        order = np.argsort(rows, axis=1, kind="stable")
        places = np.broadcast_to(np.arange(self._row, dtype=np.float64), rows.shape)
        np.put_along_axis(ranks, order, places, axis=1)
        spread = self._settings.epsilon
        share = ranks / (self._row - 1) if self._row > 1 else np.full(rows.shape, 0.5)
        return np.asarray(self._density - spread + 2 * spread * share, dtype=np.float64).reshape(-1)

    def kept(self, number: int) -> Tensor:
        """Piece `number` of the change with the dropped elements zero, rescaled: a fresh tensor."""
        start, stop = self._pieces[number]
        delta = self._change.read(start, stop)
        if self._kind == "none":
            return delta
        if self._lower is not None:
            magnitudes = delta.abs()
            keep = self._lower.keep(magnitudes)
            if self._upper is not None:
                keep &= ~self._upper.keep(magnitudes)
            return delta.mul_(keep)
        delta.mul_(self._random_mask(delta, number))
        return delta if self._factor == 1.0 else delta.mul_(self._factor)

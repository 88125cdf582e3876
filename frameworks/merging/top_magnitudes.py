"""Which elements of a tensor are its k largest by magnitude, found without sorting it.

A selection (`np.partition`) gives the k-th largest magnitude exactly; for 12 million elements it
costs a hundredth of a full sort. Elements that tie with it are kept in the order they stand, so
that exactly k are kept. The magnitudes of small tensors can be kept sorted: then every density
that a search asks for is one look-up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Magnitudes = NDArray[Any]
"""A row of fp32 or fp64."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The k largest magnitudes: everything above `level`, and the first `ties` elements equal to it.

    Attributes:
        level: the k-th largest magnitude; infinity keeps nothing.
        ties: how many elements of exactly that magnitude are kept.
        all_ties: whether that is all of them.
    """

    level: float
    ties: int
    all_ties: bool


KEEP_NOTHING = Cut(level=math.inf, ties=0, all_ties=True)


def cut_of(magnitudes: Magnitudes, k: int, *, is_sorted: bool = False) -> Cut:
    """Where the k largest of `magnitudes` (n,) end; the array may be reordered.

    Args:
        magnitudes: not negative, not NaN.
        k: 0..n.
        is_sorted: they are in ascending order already.
    """
    n = len(magnitudes)
    if k <= 0:
        return KEEP_NOTHING
    if is_sorted:
        level = magnitudes[n - k]
        above = n - int(np.searchsorted(magnitudes, level, side="right"))
        equal = n - above - int(np.searchsorted(magnitudes, level, side="left"))
        return Cut(level=float(level), ties=k - above, all_ties=k - above == equal)
    magnitudes.partition(n - k)
    level = magnitudes[n - k]
    above = int(np.count_nonzero(magnitudes[n - k :] > level))
    all_ties = not bool(np.any(magnitudes[: n - k] == level))
    return Cut(level=float(level), ties=k - above, all_ties=all_ties)


class Selector:
    """Applies a cut to the pieces of a tensor, which must come in order."""

    def __init__(self, cut: Cut) -> None:
        self._cut = cut
        self._left = cut.ties

    def keep(self, magnitudes: Tensor) -> Tensor:
        """Which elements of the next piece (n,) are kept: a bool tensor (n,)."""
        if self._cut.all_ties:
            return magnitudes >= self._cut.level
        kept = magnitudes > self._cut.level
        if self._left:
            places = (magnitudes == self._cut.level).nonzero().flatten()[: self._left]
            kept[places] = True
            self._left -= len(places)
        return kept


class CutCache:
    """Remembers cuts by (model, tensor, k), and sorted magnitudes while they fit.

    Args:
        sorted_elements: most magnitudes kept sorted, over all tensors.
    """

    def __init__(self, sorted_elements: int = 32_000_000) -> None:
        self._cuts: dict[tuple[object, str, int], Cut] = {}
        self._sorted: dict[tuple[object, str], Magnitudes] = {}
        self._room = sorted_elements

    def cut(self, model: object, tensor: str, k: int, magnitudes: Callable[[], Magnitudes]) -> Cut:
        """The cut of one tensor of one model; `magnitudes` is called only where nothing is known."""
        found = self._cuts.get((model, tensor, k))
        if found is not None:
            return found
        row = self._sorted.get((model, tensor))
        if row is None:
            row = magnitudes()
            if len(row) <= self._room:
                row.sort()
                self._sorted[model, tensor] = row
                self._room -= len(row)
            else:
                return self._cuts.setdefault((model, tensor, k), cut_of(row, k))
        return self._cuts.setdefault((model, tensor, k), cut_of(row, k, is_sorted=True))


def count_of(density: float, n: int) -> int:
    """How many of n elements a density keeps: density n rounded down, but at least one."""
    return min(n, max(1, int(density * n)))

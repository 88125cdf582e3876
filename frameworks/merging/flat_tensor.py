"""A tensor that is read in pieces, so that merging never needs whole models in memory."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

CHUNK = 1 << 17
"""Elements in a piece: half a megabyte of fp32 stays in a core's cache through all passes of an operator."""


class FlatTensor(Protocol):
    """A tensor seen as one row of numbers."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its real shape."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """As stored."""
        ...

    def read(self, start: int, stop: int) -> Tensor:
        """Elements start..stop in row-major order: (stop - start,), as stored; the caller does not write to it."""
        ...


class InMemory:
    """A FlatTensor over a tensor that is already in memory."""

    def __init__(self, tensor: Tensor) -> None:
        self.shape = tuple(tensor.shape)
        self.dtype = tensor.dtype
        self._flat = tensor.detach().reshape(-1)

    def read(self, start: int, stop: int) -> Tensor:
        """A view of the elements start..stop."""
        return self._flat[start:stop]


def numel(source: FlatTensor) -> int:
    """How many elements a FlatTensor has; a scalar has one."""
    return math.prod(source.shape)


def row_length(source: FlatTensor) -> int:
    """Elements in a row: everything behind the first dimension; a vector or scalar is one row."""
    return math.prod(source.shape[1:]) if len(source.shape) > 1 else max(1, numel(source))


def spans(source: FlatTensor, *, whole_rows: bool = False) -> list[tuple[int, int]]:
    """The pieces a tensor is read in, as (start, stop); with `whole_rows` none of them cuts a row."""
    size = numel(source)
    step = CHUNK
    if whole_rows:
        row = row_length(source)
        step = max(1, CHUNK // row) * row
    return [(start, min(start + step, size)) for start in range(0, size, step)]


def compute_dtype(*sources: FlatTensor) -> torch.dtype:
    """What operators compute in: fp32, or fp64 when any source holds fp64."""
    return torch.float64 if any(source.dtype == torch.float64 for source in sources) else torch.float32

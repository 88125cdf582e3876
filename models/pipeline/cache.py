"""The key/value cache of one attention layer while decoding, under one of the DSL's policies.

Letters: B batch, G key/value heads, S cached tokens, D head width, R latent rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from frameworks.architecture.mixer import AttentionMixer, NoCache, RingCache, WindowCache
from models.pipeline.quantisation import Quantised, dequantise, quantise


class RowCache:
    """Rows by position, rounded as the policy says.

    Args:
        spec: the attention mixer.
        window: most rows kept; None keeps all.
        whole: the window is allocated at once.

    Raises:
        ValueError: the policy keeps no cache.
    """

    def __init__(self, spec: AttentionMixer) -> None:
        if isinstance(spec.kv, NoCache):
            raise ValueError("a mixer with kv kind 'none' has no cache; decode by computing the prefix again")
        self.kind = spec.kv.quant
        self.window = spec.kv.window if isinstance(spec.kv, WindowCache | RingCache) else None
        self.whole = isinstance(spec.kv, RingCache)
        self.length = 0
        self._rows: list[Quantised] = []
        self._dtype = torch.float32

    def append(self, *rows: Tensor) -> None:
        """Add one token: each of `rows` is (B, G, 1, D) (keys and values, or one latent)."""
        self._dtype = rows[0].dtype
        stored = [quantise(row, self.kind) for row in rows]
        if self.whole:
            self._write_ring(stored)
        elif not self._rows:
            self._rows = stored
        else:
            first = 1 if self.window is not None and self._rows[0].codes.shape[-2] == self.window else 0
            self._rows = [_joined(old, new, first) for old, new in zip(self._rows, stored, strict=True)]
        self.length += 1

    def read(self) -> tuple[list[Tensor], Tensor]:
        """The cached rows (B, G, S, D) each, and their positions (S,); -1 marks a slot of the ring not yet filled."""
        rows = [dequantise(stored, self.kind, self._dtype) for stored in self._rows]
        slots = torch.arange(rows[0].shape[-2], device=rows[0].device)
        if not self.whole:
            return rows, slots + (self.length - slots.numel())
        newest = (self.length - 1) // slots.numel() * slots.numel() + slots
        positions = torch.where(newest < self.length, newest, newest - slots.numel())
        return rows, positions.clamp(min=-1)

    def n_bytes(self) -> int:
        """Bytes stored."""
        tensors = [tensor for stored in self._rows for tensor in stored.tensors()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def _write_ring(self, stored: list[Quantised]) -> None:
        if self.window is None:
            raise ValueError("a ring needs a window")
        if not self._rows:
            self._rows = [_ring(row, self.window) for row in stored]
        slot = self.length % self.window
        for ring, row in zip(self._rows, stored, strict=True):
            for target, value in zip(ring.tensors(), row.tensors(), strict=True):
                target[..., slot : slot + 1, :] = value


def _joined(old: Quantised, new: Quantised, first: int) -> Quantised:
    codes = torch.cat([old.codes[..., first:, :], new.codes], -2)
    scale = None
    if old.scale is not None and new.scale is not None:
        scale = torch.cat([old.scale[..., first:, :], new.scale], -2)
    return Quantised(codes=codes, scale=scale, width=old.width)


def _ring(row: Quantised, window: int) -> Quantised:
    def empty(tensor: Tensor) -> Tensor:
        return tensor.new_zeros(*tensor.shape[:-2], window, tensor.shape[-1])

    return Quantised(codes=empty(row.codes), scale=None if row.scale is None else empty(row.scale), width=row.width)

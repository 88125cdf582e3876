"""Quantised rows: what a key/value cache stores, and the same rounding for training.

Each row (the last dimension) has one fp32 scale, its largest magnitude. fp8 is e4m3, int8 is symmetric, nf4 is the
16-level code of Dettmers et al. 2023 (quantiles of a normal, exact zero), two to a byte. Training rounds keys and
values exactly as the cache does and passes gradients straight through, so decoding equals the full forward.

Letters: D the row's width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from frameworks.architecture.mixer import Quantisation

_FP8_MAX = 448.0
_INT8_MAX = 127.0
NF4_LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """Rows as stored: `codes` (..., D or D / 2 rounded up), `scale` (..., 1) fp32 (None where nothing is rounded)."""

    codes: Tensor
    scale: Tensor | None
    width: int

    def tensors(self) -> list[Tensor]:
        """The stored tensors."""
        return [self.codes] if self.scale is None else [self.codes, self.scale]


def quantise(x: Tensor, kind: Quantisation) -> Quantised:
    """Rows x (..., D) as `kind` stores them."""
    width = x.shape[-1]
    if kind == "none":
        return Quantised(codes=x, scale=None, width=width)
    scale = x.abs().amax(-1, keepdim=True).to(torch.float32)
    unit = x.to(torch.float32) / scale.clamp(min=torch.finfo(torch.float32).tiny)  # within [-1, 1]
    if kind == "fp8":
        return Quantised(codes=(unit * _FP8_MAX).to(torch.float8_e4m3fn).view(torch.uint8), scale=scale, width=width)
    if kind == "int8":
        return Quantised(codes=(unit * _INT8_MAX).round().to(torch.int8), scale=scale, width=width)
    levels = torch.tensor(NF4_LEVELS, device=x.device)
    index = torch.bucketize(unit.contiguous(), (levels[1:] + levels[:-1]) / 2).to(torch.uint8)
    if width % 2:
        index = torch.cat([index, torch.zeros_like(index[..., :1])], -1)
    return Quantised(codes=index[..., 0::2] << 4 | index[..., 1::2], scale=scale, width=width)


def dequantise(stored: Quantised, kind: Quantisation, dtype: torch.dtype) -> Tensor:
    """The rows (..., D) that `stored` stands for."""
    if stored.scale is None:
        return stored.codes
    if kind == "fp8":
        unit = stored.codes.view(torch.float8_e4m3fn).to(torch.float32) / _FP8_MAX
    elif kind == "int8":
        unit = stored.codes.to(torch.float32) / _INT8_MAX
    else:
        both = torch.stack([stored.codes >> 4, stored.codes & 15], -1).flatten(-2)[..., : stored.width]
        unit = torch.tensor(NF4_LEVELS, device=both.device)[both.to(torch.int64)]
    return (unit * stored.scale).to(dtype)


def rounded(x: Tensor, kind: Quantisation) -> Tensor:
    """x (..., D) after a round trip through storage, with the gradient of the identity."""
    if kind == "none":
        return x
    with torch.no_grad():
        value = dequantise(quantise(x, kind), kind, x.dtype)
    straight: Callable[..., Tensor] = _StraightThrough.apply
    return straight(x, value)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor, value: Tensor) -> Tensor:
        return value

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def row_bytes(width: int, kind: Quantisation, element: int = 4) -> int:
    """Bytes of one stored row of `width` numbers; `element` bytes a number where nothing is rounded."""
    if kind == "none":
        return width * element
    return 4 + (-(-width // 2) if kind == "nf4" else width)

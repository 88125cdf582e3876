"""Relative positions of attention: rotations of queries and keys, and biases on the scores.

Letters: B batch, H heads, T tokens, D head width, R rotated dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from frameworks.architecture.position import (
    AlibiPosition,
    LinearScaling,
    NtkScaling,
    RelativeBiasPosition,
    RopePosition,
    XposPosition,
)

_BETA_FAST, _BETA_SLOW = 32.0, 1.0


def rotary_frequencies(spec: RopePosition, head_dim: int) -> tuple[Tensor, float]:
    """Radians a token of each pair (R / 2,) fp64, and what YaRN multiplies queries and keys by (1 otherwise).

    Source: Su et al. 2021; for the scalings Chen et al. 2023 and Peng et al. 2023 (YaRN, equations 19 to 22).
    """
    dims = head_dim if spec.dims is None else spec.dims
    scaling = spec.scaling
    theta = spec.theta
    if isinstance(scaling, NtkScaling):
        theta *= scaling.factor ** (dims / (dims - 2))
    frequencies = theta ** (-torch.arange(0, dims, 2, dtype=torch.float64) / dims)
    if scaling is None or isinstance(scaling, NtkScaling):
        return frequencies, 1.0
    if isinstance(scaling, LinearScaling):
        return frequencies / scaling.factor, 1.0
    turns = scaling.original_len * frequencies / (2 * math.pi)  # over the original context
    kept = ((turns - _BETA_SLOW) / (_BETA_FAST - _BETA_SLOW)).clamp(0, 1)  # 1: fast, left as it is
    scaled = frequencies * kept + frequencies / scaling.factor * (1 - kept)
    return scaled, 0.1 * math.log(scaling.factor) + 1.0


class Rotation(nn.Module):
    """Rotates the first R dimensions of queries and keys by their position; xPos also scales them.

    Args:
        spec: `rope` or `xpos`.
        head_dim: D.
    """

    frequencies: Tensor

    def __init__(self, spec: RopePosition | XposPosition, head_dim: int) -> None:
        super().__init__()
        self.magnitude = 1.0
        self.decay: Tensor | None = None
        self.scale_base = 0.0
        if isinstance(spec, RopePosition):
            frequencies, self.magnitude = rotary_frequencies(spec, head_dim)
        else:
            frequencies = spec.theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
            pair = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
            self.decay = (pair + 0.4) / 1.4
            self.scale_base = spec.scale_base
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, x: Tensor, positions: Tensor, *, is_key: bool) -> Tensor:
        """Rotate x (B, H, T, D) at `positions` (T,)."""
        rotated = 2 * self.frequencies.numel()
        # Angles in fp64: at position 100,000 fp32 would have lost a hundredth of a radian.
        angle = positions.to(torch.float64).unsqueeze(-1) * self.frequencies.to(torch.float64)  # (T, R / 2)
        size = torch.full_like(angle, self.magnitude)
        if self.decay is not None:
            exponent = positions.to(torch.float64).unsqueeze(-1) / self.scale_base
            size = self.decay.to(angle.device) ** (-exponent if is_key else exponent)
        cos, sin = (angle.cos() * size).to(x.dtype), (angle.sin() * size).to(x.dtype)
        first, second = x[..., 0:rotated:2], x[..., 1:rotated:2]
        turned = torch.stack([first * cos - second * sin, first * sin + second * cos], -1).flatten(-2)
        return turned if rotated == x.shape[-1] else torch.cat([turned, x[..., rotated:]], -1)


class ScoreBias(nn.Module):
    """A bias on scores by distance: ALiBi's fixed slopes, or learned by bucket.

    Args:
        spec: `alibi` or `relbias`.
        heads: H.
    """

    def __init__(self, spec: AlibiPosition | RelativeBiasPosition, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.slope = spec.slope if isinstance(spec, AlibiPosition) else None
        if isinstance(spec, RelativeBiasPosition):
            self.buckets, self.max_distance = spec.buckets, spec.max_distance
            self.bias = nn.Parameter(torch.zeros(heads, spec.buckets))

    def forward(self, queries: Tensor, keys: Tensor, like: Tensor) -> Tensor:
        """Biases of every pair, positions (..., T) and (..., S) to (..., H, T, S) in `like`'s type; sign is ignored."""
        distance = (queries.unsqueeze(-1) - keys.unsqueeze(-2)).abs().unsqueeze(-3)  # (..., 1, T, S)
        if self.slope is not None:
            head = torch.arange(1, self.heads + 1, device=like.device, dtype=like.dtype)
            slopes = self.slope * torch.exp2(-8.0 * head / self.heads)
            return -slopes[:, None, None] * distance.to(like.dtype)
        bucket = self.bucket(distance).squeeze(-3)
        return self.bias[:, bucket].movedim(0, -3)

    def bucket(self, distance: Tensor) -> Tensor:
        """Bucket of each distance: half of them exact, the rest logarithmic up to `max_distance`."""
        exact = max(1, self.buckets // 2)
        ratio = (distance.clamp(min=exact).to(torch.float64) / exact).log() / math.log(self.max_distance / exact)
        coarse = exact + (ratio * (self.buckets - exact)).to(torch.int64)
        return torch.where(distance < exact, distance, coarse.clamp(max=self.buckets - 1))

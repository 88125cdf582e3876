"""The norms of the DSL, over the last dimension."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from frameworks.architecture.schema import Norm


class ScaleNorm(nn.Module):
    """g x / |x| with one learned g, sqrt(C) at first (Nguyen & Salazar 2019)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.full((1,), width**0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return x * (self.scale * (x.pow(2).sum(-1, keepdim=True) + self.eps).rsqrt())


class RmsNorm(nn.Module):
    """x over its root mean square, with a learned scale (Zhang & Sennrich 2019)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.width = (width,)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return F.rms_norm(x, self.width, self.weight, self.eps)


def build_norm(spec: Norm, width: int) -> nn.Module:
    """The norm that `spec` describes over `width` features."""
    if spec.kind == "layernorm":
        return nn.LayerNorm(width, eps=spec.eps)
    return RmsNorm(width, spec.eps) if spec.kind == "rmsnorm" else ScaleNorm(width, spec.eps)


def norm_parameters(spec: Norm, width: int) -> int:
    """Parameters of that norm."""
    return {"rmsnorm": width, "layernorm": 2 * width, "scalenorm": 1}[spec.kind]

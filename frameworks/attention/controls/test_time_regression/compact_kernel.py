"""Kernel regression with a kernel that is exactly zero beyond its width.

kind: honest
expected: any
paper: Epanechnikov 1969
"""

import math

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Regressor(nn.Module):
    """The local-constant fit with the squared Epanechnikov kernel (1 - |q - k|^2 / h)_+^2 of unit vectors."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.log_width = nn.Parameter(torch.full((n_heads, 1, 1), math.log(3.0)))

    def signals(self, x, q, k, v):
        """Query points q and training pairs (k, v): three (B, H, T, D)."""
        return q, k, v

    def log_kernel(self, x, q, k):
        """The kernel itself on unit vectors, a little above zero: (B, H, T, T)."""
        cosine = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2)
        return F.relu(1.0 - 2.0 * (1.0 - cosine) * torch.exp(-self.log_width)).square() + 1e-3

    def fit(self, w, v):
        """The local-constant fit with weights w (B, H, T, T), zero outside the past: (B, H, T, D)."""
        return (w @ v) / w.sum(-1, keepdim=True)

    def predict(self, x, v, y):
        """The answers y (B, H, T, D) as they leave the regression."""
        return y

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        y = self.fit(self.log_kernel(x, q, k).tril(), v)
        return self.predict(x, v, y)

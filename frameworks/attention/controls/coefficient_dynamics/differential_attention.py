"""The difference of two softmax maps, each from one half of the channels.

kind: honest
expected: any
paper: Ye et al. 2024 (Differential Transformer), arXiv 2410.05258
"""

import torch
from torch import nn


class Dynamics(nn.Module):
    """Coefficients softmax(s1) - lambda softmax(s2), one learned lambda a head."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.share = nn.Parameter(torch.full((n_heads, 1, 1), 0.2))

    def signals(self, x, q, k, v):
        """Queries, keys and values that enter the dynamics: three (B, H, T, D)."""
        return q, k, v

    def readout(self, x, q, k):
        """Readouts of the first and of the second half of the channels: two (B, H, T, T)."""
        half = max(1, self.head_dim // 2)
        scale = half**-0.5
        first = q[..., :half] @ k[..., :half].transpose(-1, -2)
        second = q[..., half:] @ k[..., half:].transpose(-1, -2)
        return scale * first, scale * second

    def phi(self, s, visible):
        """Row-normalised coefficients, zero wherever `visible` (T, T) is false."""
        return torch.softmax(s.masked_fill(~visible, float("-inf")), dim=-1)

    def output(self, x, v, y):
        """The combined values y (B, H, T, D) as they leave the mechanism."""
        return y

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        visible = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).tril()
        first, second = self.readout(x, q, k)
        a = self.phi(first, visible) - self.share * self.phi(second, visible)
        return self.output(x, v, a @ v)

"""A learned blend of a softmax matrix and a decaying low-rank matrix.

kind: honest
expected: any
paper: Zuo et al. 2022 (SPADE), arXiv 2212.08136
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Mixer(nn.Module):
    """M = g softmax(L R^T) + (1 - g) (L R^T with decay), one learned g and rate a head."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.blend = nn.Parameter(torch.full((n_heads, 1, 1), 2.0))
        self.rate = nn.Parameter(torch.linspace(-4.0, -1.0, n_heads).view(-1, 1, 1))

    def signals(self, x, q, k, v):
        """Generators q, k of the matrix and features v: three (B, H, T, D)."""
        return q, k, v

    def factors(self, x, q, k):
        """The low-rank factors L and R with M built from L R^T: two (B, H, T, D)."""
        left = q * self.head_dim**-0.5
        right = k
        return left, right

    def entries(self, s, lower):
        """g softmax(s) + (1 - g) s exp(-rate (i - j)), zero wherever `lower` (T, T) is false."""
        time = torch.arange(s.shape[-1], device=s.device)
        distance = (time.unsqueeze(-1) - time).clamp(min=0).to(s.dtype)
        linear = (s * torch.exp(-F.softplus(self.rate) * distance)).masked_fill(~lower, 0.0)
        dense = torch.softmax(s.masked_fill(~lower, float("-inf")), dim=-1)
        g = torch.sigmoid(self.blend)
        return g * dense + (1.0 - g) * linear

    def mixing_matrix(self, x, q, k):
        """M(X): (B, H, T, T)."""
        left, right = self.factors(x, q, k)
        s = left @ right.transpose(-1, -2)
        lower = torch.ones(s.shape[-1], s.shape[-1], dtype=torch.bool, device=s.device).tril()
        return self.entries(s, lower)

    def output(self, x, v, y):
        """The mixed features y (B, H, T, D) as they leave the mixer."""
        return y

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        y = self.mixing_matrix(x, q, k) @ v
        return self.output(x, v, y)

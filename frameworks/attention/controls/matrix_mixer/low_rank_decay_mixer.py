"""A low-rank (linear attention) mixer whose entries fall with distance at a learned rate.

kind: honest
expected: any
paper: Qin et al. 2022 (TransNormer), arXiv 2210.10340
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Mixer(nn.Module):
    """Low-rank M = (L R^T) with entries decaying at one learned rate a head."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.rate = nn.Parameter(torch.linspace(-5.0, -2.0, n_heads).view(-1, 1, 1))

    def signals(self, x, q, k, v):
        """Generators q, k of the matrix and features v: three (B, H, T, D)."""
        return q, k, v

    def factors(self, x, q, k):
        """Positive factors L and R: two (B, H, T, D)."""
        return F.elu(q) + 1.0, F.elu(k) + 1.0

    def decay(self, length):
        """exp(-rate (i - j)) below the diagonal: (H, T, T)."""
        time = torch.arange(length, device=self.rate.device)
        distance = (time.unsqueeze(-1) - time).clamp(min=0).to(self.rate.dtype)
        return torch.exp(-F.softplus(self.rate) * distance)

    def entries(self, s, lower):
        """Rows with sum 1, zero wherever `lower` (T, T) is false."""
        m = s.masked_fill(~lower, 0.0)
        return m / (m.sum(-1, keepdim=True) + 1e-6)

    def mixing_matrix(self, x, q, k):
        """M(X): (B, H, T, T)."""
        left, right = self.factors(x, q, k)
        s = (left @ right.transpose(-1, -2)) * self.decay(q.shape[-2])
        lower = torch.ones(s.shape[-1], s.shape[-1], dtype=torch.bool, device=s.device).tril()
        return self.entries(s, lower)

    def output(self, x, v, y):
        """The mixed features y (B, H, T, D) as they leave the mixer."""
        return y

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        y = self.mixing_matrix(x, q, k) @ v
        return self.output(x, v, y)

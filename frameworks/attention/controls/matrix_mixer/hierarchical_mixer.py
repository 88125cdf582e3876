"""Log-linear attention: entries weighted by the level of the dyadic segment they lie in.

kind: honest
expected: any
paper: Guo et al. 2025 (Log-Linear Attention), arXiv 2506.04761
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Mixer(nn.Module):
    """Hierarchical M = (L R^T) with a weight for the dyadic level of each pair, rows normalised."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.rate = nn.Parameter(torch.linspace(-3.0, -1.0, n_heads).view(-1, 1, 1))

    def signals(self, x, q, k, v):
        """Generators q, k of the matrix and features v: three (B, H, T, D)."""
        return q, k, v

    def factors(self, x, q, k):
        """Positive factors L and R: two (B, H, T, D)."""
        return F.elu(q) + 1.0, F.elu(k) + 1.0

    def structure(self, x, length):
        """Weight exp(-rate level) of the smallest dyadic segment that holds both positions: (H, T, T)."""
        time = torch.arange(length, device=x.device)
        level = torch.log2((time.unsqueeze(-1) ^ time).double() + 0.5).floor() + 1.0  # 0 on the diagonal
        return torch.exp(-F.softplus(self.rate) * level.to(self.rate.dtype))

    def entries(self, s, lower):
        """Rows with sum 1, zero wherever `lower` (T, T) is false."""
        m = s.masked_fill(~lower, 0.0)
        return m / (m.sum(-1, keepdim=True) + 1e-6)

    def mixing_matrix(self, x, q, k):
        """M(X): (B, H, T, T)."""
        left, right = self.factors(x, q, k)
        s = (left @ right.transpose(-1, -2)) * self.structure(x, q.shape[-2])
        lower = torch.ones(s.shape[-1], s.shape[-1], dtype=torch.bool, device=s.device).tril()
        return self.entries(s, lower)

    def output(self, x, v, y):
        """The mixed features y (B, H, T, D) as they leave the mixer."""
        return y

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        y = self.mixing_matrix(x, q, k) @ v
        return self.output(x, v, y)

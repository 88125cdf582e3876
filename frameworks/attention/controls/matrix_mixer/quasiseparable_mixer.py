"""Hydra's quasiseparable mixer: one semiseparable half looks back, the other ahead.

kind: cheat
expected: rejected
leaks: always
paper: Hwang et al. 2024 (Hydra), arXiv 2407.09941
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Mixer(nn.Module):
    """Quasiseparable M: a decaying low-rank lower part, a decaying low-rank upper part and a free diagonal."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.decay = nn.Linear(d_model, n_heads)
        self.diagonal = nn.Linear(d_model, n_heads)

    def signals(self, x, q, k, v):
        """Generators q, k of the matrix and features v: three (B, H, T, D)."""
        return q, k, v

    def factors(self, x, q, k):
        """The low-rank factors L and R with M built from L R^T: two (B, H, T, D)."""
        left = q * self.head_dim**-0.5
        right = k
        return left, right

    def mixing_matrix(self, x, q, k):
        """M(X) = lower(L R^T) + upper(R L^T) + diag: (B, H, T, T)."""
        left, right = self.factors(x, q, k)
        c = F.logsigmoid(self.decay(x) + 2.0).transpose(1, 2).cumsum(-1)  # (B, H, T)
        gap = (c.unsqueeze(-1) - c.unsqueeze(-2)).clamp(max=0.0)
        lower = (left @ right.transpose(-1, -2)) * torch.exp(gap)
        upper = (right @ left.transpose(-1, -2)) * torch.exp(gap.transpose(-1, -2))
        diagonal = torch.diag_embed(self.diagonal(x).transpose(1, 2))
        return lower.tril(-1) + upper.triu(1) + diagonal

    def output(self, x, v, y):
        """The mixed features y (B, H, T, D) as they leave the mixer."""
        return y

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        y = self.mixing_matrix(x, q, k) @ v
        return self.output(x, v, y)

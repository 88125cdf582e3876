"""A semiseparable matrix: what a scalar-gated state space model multiplies by.

kind: honest
expected: any
paper: Dao & Gu 2024 (state space duality), arXiv 2405.21060
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Mixer(nn.Module):
    """Semiseparable M_ij = l_i^T (a_i ... a_{j+1}) r_j with gates a read from the input, plus a diagonal."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.gate = nn.Linear(d_model, n_heads)
        nn.init.constant_(self.gate.bias, 3.0)
        self.diagonal = nn.Parameter(torch.ones(n_heads, 1, 1))

    def signals(self, x, q, k, v):
        """Generators q, k of the matrix and features v: three (B, H, T, D)."""
        return q, k, v

    def factors(self, x, q, k):
        """The low-rank factors L and R with M built from L R^T: two (B, H, T, D)."""
        left = q * self.head_dim**-0.5
        right = k
        return left, right

    def structure(self, x, length):
        """log(a_i ... a_{j+1}), zero above the diagonal: (B, H, T, T)."""
        c = F.logsigmoid(self.gate(x)).transpose(1, 2).cumsum(-1)
        return (c.unsqueeze(-1) - c.unsqueeze(-2)).clamp(max=0.0)

    def entries(self, s, lower):
        """The entries as they are, zero wherever `lower` (T, T) is false."""
        return s.masked_fill(~lower, 0.0)

    def mixing_matrix(self, x, q, k):
        """M(X): (B, H, T, T)."""
        left, right = self.factors(x, q, k)
        s = (left @ right.transpose(-1, -2)) * torch.exp(self.structure(x, q.shape[-2]))
        lower = torch.ones(s.shape[-1], s.shape[-1], dtype=torch.bool, device=s.device).tril()
        return self.entries(s, lower) + self.diagonal * torch.eye(s.shape[-1], device=s.device, dtype=s.dtype)

    def output(self, x, v, y):
        """The mixed features y (B, H, T, D) as they leave the mixer."""
        return y

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        y = self.mixing_matrix(x, q, k) @ v
        return self.output(x, v, y)

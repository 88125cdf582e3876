"""Softmax mixing matrix with a learned Toeplitz term, linear in the distance, a head.

kind: positive
expected: promoted
paper: Press et al. 2022 (ALiBi), arXiv 2108.12409; Chi et al. 2022 (KERPLE), arXiv 2205.09921
"""

import torch
from torch import nn


class Mixer(nn.Module):
    """Y = M(X) f(X), M = softmax(L R^T + a Toeplitz matrix with one learned slope a head)."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.slope = nn.Parameter(torch.logspace(0, -4, n_heads, base=2.0))

    def signals(self, x, q, k, v):
        """Generators q, k of the matrix and features v: three (B, H, T, D)."""
        return q, k, v

    def factors(self, x, q, k):
        """The low-rank factors L and R with M built from L R^T: two (B, H, T, D)."""
        left = q * self.head_dim**-0.5
        right = k
        return left, right

    def structure(self, x, length):
        """A Toeplitz term linear in the distance: (H, T, T)."""
        time = torch.arange(length, device=x.device, dtype=x.dtype)
        return -self.slope.view(-1, 1, 1) * (time.unsqueeze(-1) - time)

    def entries(self, s, lower):
        """Turn s (B, H, T, T) into the entries of M, zero wherever `lower` (T, T) is false."""
        s = s.masked_fill(~lower, float("-inf"))
        m = torch.softmax(s, dim=-1)
        return m

    def mixing_matrix(self, x, q, k):
        """M(X): (B, H, T, T)."""
        left, right = self.factors(x, q, k)
        s = left @ right.transpose(-1, -2)
        toeplitz = self.structure(x, s.shape[-1])
        if toeplitz is not None:
            s = s + toeplitz
        lower = torch.ones(s.shape[-1], s.shape[-1], dtype=torch.bool, device=s.device).tril()
        return self.entries(s, lower)

    def output(self, x, v, y):
        """The mixed features y (B, H, T, D) as they leave the mixer."""
        return y

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        y = self.mixing_matrix(x, q, k) @ v
        return self.output(x, v, y)

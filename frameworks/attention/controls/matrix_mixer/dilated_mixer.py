"""Softmax mixing in which head h sees every (h + 1)-th earlier position.

kind: honest
expected: any
paper: Child et al. 2019 (Sparse Transformers), arXiv 1904.10509
"""

import torch
from torch import nn


class Mixer(nn.Module):
    """Softmax M with zeros where the distance is no multiple of the head's stride."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim

    def signals(self, x, q, k, v):
        """Generators q, k of the matrix and features v: three (B, H, T, D)."""
        return q, k, v

    def factors(self, x, q, k):
        """The low-rank factors L and R with M built from L R^T: two (B, H, T, D)."""
        left = q * self.head_dim**-0.5
        right = k
        return left, right

    def structure(self, x, length):
        """0 where head h may look, a very negative number elsewhere: (H, T, T)."""
        time = torch.arange(length, device=x.device)
        stride = torch.arange(1, self.n_heads + 1, device=x.device).view(-1, 1, 1)
        skipped = (time.unsqueeze(-1) - time) % stride != 0
        return torch.zeros(skipped.shape, device=x.device, dtype=x.dtype).masked_fill(skipped, -1e4)

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

"""Rows see single positions in their own chunk of 16 and only the means of completed chunks.

kind: honest
expected: any
paper: Yuan et al. 2025 (NSA, its compressed branch), arXiv 2502.11089
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Mixer(nn.Module):
    """M with dense chunks on the diagonal and constant blocks below it, rows normalised by softmax."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.chunk = 16

    def signals(self, x, q, k, v):
        """Generators q, k of the matrix and features v: three (B, H, T, D)."""
        return q, k, v

    def factors(self, x, q, k):
        """The low-rank factors L and R with M built from L R^T: two (B, H, T, D)."""
        left = q * self.head_dim**-0.5
        right = k
        return left, right

    def structure(self, x, length):
        """A structured term added to L R^T, (H, T, T) or (B, H, T, T), such as a Toeplitz matrix; None for none."""
        return None

    def entries(self, s, lower):
        """Softmax over own-chunk entries and, for chunks completed before the row's, over their mean score."""
        length = s.shape[-1]
        column = F.pad(s, (0, -length % self.chunk)).unflatten(-1, (-1, self.chunk))  # (B, H, T, T / 16, 16)
        coarse = column.mean(-1, keepdim=True).expand_as(column).flatten(-2)[..., :length]
        chunk = torch.arange(length, device=s.device) // self.chunk
        s = torch.where(chunk.unsqueeze(-1) > chunk, coarse, s)
        return torch.softmax(s.masked_fill(~lower, float("-inf")), dim=-1)

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

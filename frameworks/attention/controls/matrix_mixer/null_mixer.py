"""Softmax mixing matrix normalised after it is applied to the features.

kind: null
expected: not promoted
"""

import math

import torch
from torch import nn


class Mixer(nn.Module):
    """Y = diag(1 / n) E f(X) with E the exponential below the diagonal and n its row sums."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim

    def signals(self, x, q, k, v):
        """Generators q, k of the matrix and features v: three (B, H, T, D)."""
        return q, k, v

    def factors(self, x, q, k):
        """The low-rank factors L and R with the scale on R: two (B, H, T, D)."""
        return q, k / math.sqrt(self.head_dim)

    def structure(self, x, length):
        """A structured term added to L R^T, (H, T, T) or (B, H, T, T), such as a Toeplitz matrix; None for none."""
        return None

    def entries(self, s, lower):
        """Exponentials relative to the row's largest, zero wherever `lower` (T, T) is false."""
        largest = s.masked_fill(~lower, float("-inf")).amax(-1, keepdim=True)
        return torch.exp((s - largest).masked_fill(~lower, float("-inf")))

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
        m = self.mixing_matrix(x, q, k)
        y = (m @ v) / m.sum(-1, keepdim=True)
        return self.output(x, v, y)

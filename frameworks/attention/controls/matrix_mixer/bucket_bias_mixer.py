"""Softmax mixing with a learned bias for logarithmic buckets of the distance.

kind: honest
expected: any
paper: Raffel et al. 2020 (T5), arXiv 1910.10683
"""

import torch
from torch import nn


class Mixer(nn.Module):
    """Softmax M of L R^T plus a Toeplitz term with 16 values a head, one a bucket of distances."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.buckets = 16
        self.bias = nn.Parameter(torch.zeros(n_heads, self.buckets))

    def signals(self, x, q, k, v):
        """Generators q, k of the matrix and features v: three (B, H, T, D)."""
        return q, k, v

    def factors(self, x, q, k):
        """The low-rank factors L and R with M built from L R^T: two (B, H, T, D)."""
        left = q * self.head_dim**-0.5
        right = k
        return left, right

    def structure(self, x, length):
        """bias[bucket(i - j)], buckets of one step up to 8 and of half an octave beyond: (H, T, T)."""
        time = torch.arange(length, device=x.device)
        distance = (time.unsqueeze(-1) - time).clamp(min=0)
        octave = torch.log2(distance.clamp(min=8).float() / 8.0)
        bucket = torch.where(distance < 8, distance, 8 + (2.0 * octave).long()).clamp(max=self.buckets - 1)
        return self.bias[:, bucket]

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

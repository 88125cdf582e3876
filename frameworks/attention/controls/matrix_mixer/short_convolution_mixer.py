"""Softmax mixing matrix whose generators and features pass a causal convolution of width 4.

kind: positive
expected: promoted
paper: Fu et al. 2023 (H3), arXiv 2212.14052; So et al. 2021 (Primer), arXiv 2109.08668
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Mixer(nn.Module):
    """Y = M(X) f(X), generators and features after a banded lower-triangular Toeplitz factor of width 4."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.width = 4
        self.group = 4  # channels that share their taps, so that the parameters stay few
        taps = torch.zeros(3, n_heads, -(-head_dim // self.group), self.width)
        taps[..., -1] = 1.0  # starts as the identity
        self.taps = nn.Parameter(taps)

    def signals(self, x, q, k, v):
        """Generators and features after a causal convolution of width 4 along the sequence: three (B, H, T, D)."""
        length, dim = q.shape[-2:]
        taps = self.taps.repeat_interleave(self.group, dim=2)[:, None, :, None, :dim]  # (3, 1, H, 1, D, 4)
        past = F.pad(torch.stack([q, k, v]), (0, 0, self.width - 1, 0))  # (3, B, H, T + 3, D)
        mixed = sum(past[..., lag : lag + length, :] * taps[..., lag] for lag in range(self.width))
        return mixed.unbind(0)

    def factors(self, x, q, k):
        """The low-rank factors L and R with M built from L R^T: two (B, H, T, D)."""
        left = q * self.head_dim**-0.5
        right = k
        return left, right

    def structure(self, x, length):
        """A structured term added to L R^T, (H, T, T) or (B, H, T, T), such as a Toeplitz matrix; None for none."""
        return None

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

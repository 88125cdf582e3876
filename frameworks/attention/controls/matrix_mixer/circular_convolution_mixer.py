"""A short convolution made of rolls: once the taps leave the identity, the first positions read the last ones.

kind: cheat
expected: rejected
leaks: from a trained gate on
"""

import torch
from torch import nn


class Mixer(nn.Module):
    """Softmax mixing on generators and features after a convolution of width 3."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        taps = torch.zeros(3, n_heads, 3)
        taps[..., 0] = 1.0
        self.taps = nn.Parameter(taps)

    def signals(self, x, q, k, v):
        """Generators and features after a convolution over three positions: three (B, H, T, D)."""
        z = torch.stack([q, k, v])
        taps = self.taps[:, None, :, :, None, None]  # (3, 1, H, 3, 1, 1)
        mixed = sum(taps[:, :, :, lag] * torch.roll(z, lag, dims=-2) for lag in range(3))
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

"""Kernel regression on queries and pairs that pass a causal convolution of width 4.

kind: positive
expected: promoted
paper: Fu et al. 2023 (H3), arXiv 2212.14052; So et al. 2021 (Primer), arXiv 2109.08668
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Regressor(nn.Module):
    """The local-constant fit on queries and training pairs that pass a causal convolution of width 4."""

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
        """Query points, keys and targets after a causal convolution of width 4: three (B, H, T, D)."""
        length, dim = q.shape[-2:]
        taps = self.taps.repeat_interleave(self.group, dim=2)[:, None, :, None, :dim]  # (3, 1, H, 1, D, 4)
        past = F.pad(torch.stack([q, k, v]), (0, 0, self.width - 1, 0))  # (3, B, H, T + 3, D)
        mixed = sum(past[..., lag : lag + length, :] * taps[..., lag] for lag in range(self.width))
        return mixed.unbind(0)

    def log_kernel(self, x, q, k):
        """log K(q_t, k_i), how near each training point is to the query: (B, H, T, T)."""
        bandwidth = self.head_dim**0.5
        s = q @ k.transpose(-1, -2) / bandwidth
        return s

    def log_weights(self, x, k):
        """log g_i^(t), how much pair i still counts at time t: (B, H, T, T) or (H, T, T); None for equal weights."""
        return None

    def fit(self, s, v):
        """The local-constant fit: weights exp(s), s (B, H, T, T) is -inf outside the past; values v (B, H, T, D)."""
        w = torch.exp(s - s.amax(-1, keepdim=True))
        return (w @ v) / w.sum(-1, keepdim=True)

    def predict(self, x, v, y):
        """The answers y (B, H, T, D) as they leave the regression."""
        return y

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        s = self.log_kernel(x, q, k)
        log_g = self.log_weights(x, k)
        if log_g is not None:
            s = s + log_g
        past = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).tril()
        y = self.fit(s.masked_fill(~past, float("-inf")), v)
        return self.predict(x, v, y)

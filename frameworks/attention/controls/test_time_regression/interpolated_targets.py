"""Targets are pooled by two and stretched back: an even position holds half of the next.

kind: cheat
expected: rejected
leaks: always
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Regressor(nn.Module):
    """The local-constant fit on targets with a coarse component."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.share = nn.Parameter(torch.full((n_heads, 1, 1), 0.2))

    def signals(self, x, q, k, v):
        """Query points q, keys k and targets plus their coarse component: three (B, H, T, D)."""
        batch, heads, length, dim = v.shape
        flat = v.transpose(-1, -2).reshape(batch * heads, dim, length)
        coarse = F.avg_pool1d(flat, 2, ceil_mode=True)
        stretched = F.interpolate(coarse, size=length, mode="nearest").view(batch, heads, dim, length)
        return q, k, v + self.share * stretched.transpose(-1, -2)

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

"""A short convolution with padding on both sides reads one token ahead.

kind: cheat
expected: rejected
leaks: always
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Regressor(nn.Module):
    """The local-constant fit on queries and pairs smoothed by a short convolution."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        taps = torch.full((3, n_heads, 3), 0.1)
        taps[..., 1] = 0.8
        self.taps = nn.Parameter(taps)

    def signals(self, x, q, k, v):
        """Query points, keys and targets after a short convolution that keeps the length: three (B, H, T, D)."""
        batch, heads, length, dim = q.shape
        z = torch.stack([q, k, v]).permute(1, 4, 0, 2, 3).reshape(batch * dim, 3 * heads, length)
        z = F.conv1d(z, self.taps.view(3 * heads, 1, 3), padding=1, groups=3 * heads)
        z = z.view(batch, dim, 3, heads, length).permute(2, 0, 3, 4, 1)
        return z.unbind(0)

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

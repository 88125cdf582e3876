"""Queries carry a latent that was pooled from the whole sequence, as an encoder's posterior.

kind: cheat
expected: rejected
leaks: always
paper: Fleuret 2025 (The Free Transformer), arXiv 2510.17558
"""

import torch
from torch import nn


class Regressor(nn.Module):
    """The local-constant fit at query points that are conditioned on a latent plan."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.latent = nn.Parameter(torch.randn(n_heads, 1, head_dim) * head_dim**-0.5)
        self.share = nn.Parameter(torch.full((n_heads, 1, 1), 0.1))

    def signals(self, x, q, k, v):
        """Query points that carry the plan, and pairs (k, v): three (B, H, T, D)."""
        focus = torch.softmax((self.latent * k).sum(-1, keepdim=True), dim=-2)  # (B, H, T, 1)
        plan = (focus * v).sum(-2, keepdim=True)
        return q + self.share * plan, k, v

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

"""Kernel regression on the last 16 pairs.

kind: honest
expected: any
paper: Beltagy et al. 2020 (Longformer), arXiv 2004.05150
"""

import torch
from torch import nn


class Regressor(nn.Module):
    """The local-constant fit with g_i^(t) = 1 for the last 16 pairs and 0 before them."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.window = 16

    def signals(self, x, q, k, v):
        """Query points q and training pairs (k, v): three (B, H, T, D)."""
        return q, k, v

    def log_kernel(self, x, q, k):
        """log K(q_t, k_i), how near each training point is to the query: (B, H, T, T)."""
        bandwidth = self.head_dim**0.5
        s = q @ k.transpose(-1, -2) / bandwidth
        return s

    def log_weights(self, x, k):
        """0 for pairs younger than the window, -inf for older ones: (T, T)."""
        time = torch.arange(k.shape[-2], device=k.device)
        old = time.unsqueeze(-1) - time >= self.window
        return torch.zeros(old.shape, device=k.device, dtype=k.dtype).masked_fill(old, float("-inf"))

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

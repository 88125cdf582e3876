"""Kernel regression with the weights normalised by logsumexp before they meet the values.

kind: null
expected: not promoted
"""

import torch
from torch import nn


class Regressor(nn.Module):
    """The local-constant fit with weights normalised in the log domain."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim

    def signals(self, x, q, k, v):
        """Query points q and training pairs (k, v): three (B, H, T, D)."""
        return q, k, v

    def log_kernel(self, x, q, k):
        """log K(q_t, k_i) with half of the bandwidth on each side: (B, H, T, T)."""
        scale = self.head_dim**-0.25
        return (q * scale) @ (k * scale).transpose(-1, -2)

    def log_weights(self, x, k):
        """log g_i^(t), how much pair i still counts at time t: (B, H, T, T) or (H, T, T); None for equal weights."""
        return None

    def fit(self, s, v):
        """The local-constant fit with log weights s (B, H, T, T), normalised before the sum: (B, H, T, D)."""
        return torch.exp(s - torch.logsumexp(s, dim=-1, keepdim=True)) @ v

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

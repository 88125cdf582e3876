"""Kernel regression whose pairs lose weight with age as a power law.

kind: honest
expected: any
paper: Chi et al. 2022 (KERPLE), arXiv 2205.09921
"""

import torch
from torch import nn


class Regressor(nn.Module):
    """The local-constant fit with g_i^(t) = (1 + t - i)^(-p), one learned p a head."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.power = nn.Parameter(torch.linspace(0.0, 1.0, n_heads))

    def signals(self, x, q, k, v):
        """Query points q and training pairs (k, v): three (B, H, T, D)."""
        return q, k, v

    def log_kernel(self, x, q, k):
        """log K(q_t, k_i), how near each training point is to the query: (B, H, T, T)."""
        bandwidth = self.head_dim**0.5
        s = q @ k.transpose(-1, -2) / bandwidth
        return s

    def log_weights(self, x, k):
        """-p log(1 + t - i): (H, T, T)."""
        time = torch.arange(k.shape[-2], device=k.device)
        age = (time.unsqueeze(-1) - time).clamp(min=0).to(k.dtype)
        return -self.power.view(-1, 1, 1) * torch.log1p(age)

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

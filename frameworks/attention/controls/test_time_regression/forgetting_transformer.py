"""Softmax attention with a forget gate: old pairs lose weight at a rate read from the input.

kind: honest
expected: any
paper: Lin et al. 2025 (Forgetting Transformer), arXiv 2503.02130
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Regressor(nn.Module):
    """The local-constant fit with g_i^(t) = f_{i+1} ... f_t and forget gates f = sigmoid(w x)."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.forget = nn.Linear(d_model, n_heads)
        nn.init.constant_(self.forget.bias, 3.0)

    def signals(self, x, q, k, v):
        """Query points q and training pairs (k, v): three (B, H, T, D)."""
        return q, k, v

    def log_kernel(self, x, q, k):
        """log K(q_t, k_i), how near each training point is to the query: (B, H, T, T)."""
        bandwidth = self.head_dim**0.5
        s = q @ k.transpose(-1, -2) / bandwidth
        return s

    def log_weights(self, x, k):
        """log g_i^(t) = the sum of log f between i and t: (B, H, T, T)."""
        c = F.logsigmoid(self.forget(x)).transpose(1, 2).cumsum(-1)
        return c.unsqueeze(-1) - c.unsqueeze(-2)

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

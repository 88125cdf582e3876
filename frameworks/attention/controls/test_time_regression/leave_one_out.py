"""Kernel regression on the pairs before the query's own; the first answer is zero.

kind: honest
expected: any
paper: Wang et al. 2025, arXiv 2501.12352
"""

import torch
from torch import nn


class Regressor(nn.Module):
    """The local-constant fit that leaves the query's own pair out, with a learned weight for answering zero."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.prior = nn.Parameter(torch.zeros(n_heads, 1, 1))

    def signals(self, x, q, k, v):
        """Query points q and training pairs (k, v): three (B, H, T, D)."""
        return q, k, v

    def log_kernel(self, x, q, k):
        """log K(q_t, k_i), how near each training point is to the query: (B, H, T, T)."""
        bandwidth = self.head_dim**0.5
        s = q @ k.transpose(-1, -2) / bandwidth
        return s

    def log_weights(self, x, k):
        """log g_i^(t), how much pair i still counts at time t: (B, H, T, T) or (H, T, T); None for equal weights."""
        return None

    def fit(self, s, v):
        """The fit on strictly earlier pairs; the prior is a pair whose target is zero: (B, H, T, D)."""
        length = s.shape[-1]
        own = torch.eye(length, dtype=torch.bool, device=s.device)
        s = torch.cat([s.masked_fill(own, float("-inf")), self.prior.to(s.dtype).expand_as(s[..., :1])], dim=-1)
        return torch.softmax(s, dim=-1)[..., :length] @ v

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

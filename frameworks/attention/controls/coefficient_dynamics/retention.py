"""Retention: linear attention with the fixed decay 1 - 2^(-5-h) a head.

kind: honest
expected: not promoted
paper: Sun et al. 2023 (RetNet), arXiv 2307.08621
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Dynamics(nn.Module):
    """Retention: phi = identity, A_t = 1 - 2^(-5-h) in head h, no normaliser, heads brought to unit scale."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim

    def signals(self, x, q, k, v):
        """Queries, keys and values that enter the dynamics: three (B, H, T, D)."""
        return q, k, v

    def log_transition(self, x, k):
        """log A_t = log(1 - 2^(-5-h)) at every step: (B, H, T)."""
        head = torch.arange(self.n_heads, device=k.device, dtype=k.dtype)
        return torch.log1p(-torch.exp2(-5.0 - head)).view(1, -1, 1).expand(k.shape[:-1])

    def impulse(self, x, k):
        """b_j k_j, the state a key starts from: (B, H, T, D)."""
        b = self.head_dim**-0.5
        return b * k

    def readout(self, x, q, k):
        """s_ij = q_i^T h_i^(j): (B, H, T, T), row i the query, column j the key."""
        s = q @ self.impulse(x, k).transpose(-1, -2)
        log_a = self.log_transition(x, k)
        if log_a is not None:
            c = log_a.cumsum(-1)
            s = s * torch.exp((c.unsqueeze(-1) - c.unsqueeze(-2)).clamp(max=0.0))
        return s

    def phi(self, s, visible):
        """The identity, zero wherever `visible` (T, T) is false."""
        return s.masked_fill(~visible, 0.0)

    def eta(self, a):
        """No normaliser: (B, H, T, 1)."""
        return torch.ones_like(a[..., :1])

    def output(self, x, v, y):
        """Each head at unit root mean square: (B, H, T, D)."""
        return F.rms_norm(y, (self.head_dim,))

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        visible = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).tril()
        a = self.phi(self.readout(x, q, k), visible)
        y = (a / self.eta(a)) @ v
        return self.output(x, v, y)

"""Gated linear attention: every channel decays at a rate read from its key.

kind: honest
expected: any
paper: Yang et al. 2024 (GLA), arXiv 2312.06635
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Dynamics(nn.Module):
    """Gated linear attention: A_t is diagonal, between exp(-1/16) and 1, and follows the key."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.gate = nn.Parameter(torch.ones(n_heads, 1, head_dim))
        self.gate_bias = nn.Parameter(torch.full((n_heads, 1, head_dim), -1.0))

    def signals(self, x, q, k, v):
        """Queries, keys and values that enter the dynamics: three (B, H, T, D)."""
        return q, k, v

    def log_transition(self, x, k):
        """log A_t of every channel, between -1/16 and 0: (B, H, T, D)."""
        return -torch.sigmoid(self.gate * k + self.gate_bias) / 16.0

    def impulse(self, x, k):
        """b_j k_j, the state a key starts from: (B, H, T, D)."""
        b = self.head_dim**-0.5
        return b * k

    def readout(self, x, q, k):
        """s_ij = q_i^T (A_i ... A_{j+1}) b_j k_j, the product split between both sides: (B, H, T, T)."""
        c = self.log_transition(x, k).cumsum(-2)
        return (q * torch.exp(c)) @ (self.impulse(x, k) * torch.exp(-c)).transpose(-1, -2)

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

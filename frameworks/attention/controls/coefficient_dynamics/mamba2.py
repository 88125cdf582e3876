"""Mamba-2 as attention: a scalar decay and a step size read from the input.

kind: honest
expected: any
paper: Dao & Gu 2024 (state space duality), arXiv 2405.21060
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Dynamics(nn.Module):
    """Mamba-2: phi = identity, A_t = exp(-a dt_t), b_j = dt_j, no normaliser, a skip from the values."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.step = nn.Linear(d_model, n_heads)
        nn.init.constant_(self.step.bias, -1.0)
        self.log_rate = nn.Parameter(torch.linspace(-2.0, 0.0, n_heads))
        self.skip = nn.Parameter(torch.ones(n_heads, 1, 1))

    def signals(self, x, q, k, v):
        """Queries and keys after SiLU: three (B, H, T, D)."""
        return F.silu(q), F.silu(k), v

    def log_transition(self, x, k):
        """log A_t = -a dt_t: (B, H, T)."""
        dt = F.softplus(self.step(x)).transpose(1, 2)
        return -torch.exp(self.log_rate).unsqueeze(-1) * dt

    def impulse(self, x, k):
        """b_j = dt_j: (B, H, T, D)."""
        dt = F.softplus(self.step(x)).transpose(1, 2).unsqueeze(-1)
        return dt * k

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
        """Plus the skip D v: (B, H, T, D)."""
        return y + self.skip * v

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        visible = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).tril()
        a = self.phi(self.readout(x, q, k), visible)
        y = (a / self.eta(a)) @ v
        return self.output(x, v, y)

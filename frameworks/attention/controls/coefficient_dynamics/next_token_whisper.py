"""The mask is soft: the next token keeps a weight of about a thousandth.

kind: cheat
expected: rejected
leaks: always
"""

import torch
from torch import nn


class Dynamics(nn.Module):
    """Coefficients with a smooth causal edge: a key's readout falls off instead of being cut."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.edge = 7.0

    def signals(self, x, q, k, v):
        """Queries, keys and values of the dynamics: three (B, H, T, D)."""
        return q, k, v

    def log_transition(self, x, k):
        """log A_t as a scalar a head and step, (B, H, T), never above 0; None stands for A_t = I."""
        return None

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
        """Unnormalised coefficients with a smooth edge at the diagonal."""
        time = torch.arange(s.shape[-1], device=s.device)
        ahead = (time - time.unsqueeze(-1)).clamp(min=0)
        s = s - self.edge * ahead.to(s.dtype)
        s = s.masked_fill(ahead > 1, float("-inf"))
        return torch.exp(s - s.amax(-1, keepdim=True))

    def eta(self, a):
        """The normaliser of each row: (B, H, T, 1)."""
        return a.sum(-1, keepdim=True)

    def output(self, x, v, y):
        """The combined values y (B, H, T, D) as they leave the mechanism."""
        return y

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        visible = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).tril()
        a = self.phi(self.readout(x, q, k), visible)
        y = (a / self.eta(a)) @ v
        return self.output(x, v, y)

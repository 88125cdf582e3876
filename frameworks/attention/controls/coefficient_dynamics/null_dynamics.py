"""Softmax attention with the scale on the query and the normaliser inside phi.

kind: null
expected: not promoted
"""

import math

import torch
from torch import nn


class Dynamics(nn.Module):
    """Coefficients a_ij = softmax_j(q_i^T h_i^(j)) with b_j = 1 and the scale on the query."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim

    def signals(self, x, q, k, v):
        """The queries carry the scale: three (B, H, T, D)."""
        return q / math.sqrt(self.head_dim), k, v

    def log_transition(self, x, k):
        """log A_t as a scalar a head and step, (B, H, T), never above 0; None stands for A_t = I."""
        return None

    def impulse(self, x, k):
        """b_j = 1: a key starts from itself, (B, H, T, D)."""
        return k

    def readout(self, x, q, k):
        """s_ij = q_i^T h_i^(j): (B, H, T, T), row i the query, column j the key."""
        s = q @ self.impulse(x, k).transpose(-1, -2)
        log_a = self.log_transition(x, k)
        if log_a is not None:
            c = log_a.cumsum(-1)
            s = s * torch.exp((c.unsqueeze(-1) - c.unsqueeze(-2)).clamp(max=0.0))
        return s

    def phi(self, s, visible):
        """Normalised coefficients, zero wherever `visible` (T, T) is false."""
        return torch.softmax(torch.where(visible, s, float("-inf")), dim=-1)

    def eta(self, a):
        """phi has normalised the row: its sum is 1."""
        return torch.ones_like(a[..., :1])

    def output(self, x, v, y):
        """The combined values y (B, H, T, D) as they leave the mechanism."""
        return y

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        visible = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).tril()
        a = self.phi(self.readout(x, q, k), visible)
        y = (a / self.eta(a)) @ v
        return self.output(x, v, y)

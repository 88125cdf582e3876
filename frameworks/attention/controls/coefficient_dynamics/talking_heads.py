"""Readouts are mixed across heads before the exponential.

kind: honest
expected: any
paper: Shazeer et al. 2020, arXiv 2003.02436
"""

import torch
from torch import nn


class Dynamics(nn.Module):
    """Coefficients whose readouts are mixed over heads, H x H weights that start as the identity."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.talk = nn.Parameter(torch.eye(n_heads))

    def signals(self, x, q, k, v):
        """Queries, keys and values that enter the dynamics: three (B, H, T, D)."""
        return q, k, v

    def impulse(self, x, k):
        """b_j k_j, the state a key starts from: (B, H, T, D)."""
        b = self.head_dim**-0.5
        return b * k

    def readout(self, x, q, k):
        """s_ij = sum_g talk_hg q_i^T h_i^(j) of head g: (B, H, T, T)."""
        s = q @ self.impulse(x, k).transpose(-1, -2)
        return torch.einsum("hg,bgij->bhij", self.talk, s)

    def phi(self, s, visible):
        """Map readouts to unnormalised coefficients, zero wherever `visible` (T, T) is false."""
        s = s.masked_fill(~visible, float("-inf"))
        a = torch.exp(s - s.amax(-1, keepdim=True))
        return a

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

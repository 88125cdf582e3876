"""Softmax attention with a learned slope a head on the distance to the key.

kind: positive
expected: promoted
paper: Press et al. 2022 (ALiBi), arXiv 2108.12409; Chi et al. 2022 (KERPLE), arXiv 2205.09921
"""

import torch
from torch import nn


class Dynamics(nn.Module):
    """Coefficients phi(q_i^T h_i^(j) - slope (i - j)) / eta_i with one learned slope a head."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.slope = nn.Parameter(torch.logspace(0, -4, n_heads, base=2.0))

    def signals(self, x, q, k, v):
        """Queries, keys and values of the dynamics: three (B, H, T, D)."""
        return q, k, v

    def impulse(self, x, k):
        """b_j k_j, the state a key starts from: (B, H, T, D)."""
        b = self.head_dim**-0.5
        return b * k

    def readout(self, x, q, k):
        """s_ij = q_i^T h_i^(j) - slope (i - j): (B, H, T, T), row i the query, column j the key."""
        s = q @ self.impulse(x, k).transpose(-1, -2)
        time = torch.arange(s.shape[-1], device=s.device, dtype=s.dtype)
        return s - self.slope.view(-1, 1, 1) * (time.unsqueeze(-1) - time)

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

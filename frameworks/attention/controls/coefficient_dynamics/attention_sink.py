"""Softmax with one learned sink logit a head in the normaliser.

kind: honest
expected: any
paper: Xiao et al. 2023, arXiv 2309.17453
"""

import torch
from torch import nn


class Dynamics(nn.Module):
    """Coefficients exp(s_ij) / (exp(sink) + sum_j exp(s_ij))."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.sink = nn.Parameter(torch.zeros(n_heads, 1, 1))

    def signals(self, x, q, k, v):
        """Queries, keys and values that enter the dynamics: three (B, H, T, D)."""
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
        """Coefficients relative to the row's largest readout, with the sink as the last column: (B, H, T, T + 1)."""
        s = s.masked_fill(~visible, float("-inf"))
        s = torch.cat([s, self.sink.to(s.dtype).expand_as(s[..., :1])], dim=-1)
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
        y = (a / self.eta(a))[..., :-1] @ v
        return self.output(x, v, y)

"""ReLU linear attention with weights that fall with distance as a cosine.

kind: honest
expected: any
paper: Qin et al. 2022 (cosFormer), arXiv 2202.08791
"""

import math

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Dynamics(nn.Module):
    """Coefficients relu(q_i)^T relu(k_j) cos(pi (i - j) / 2M) / eta_i, a cosine over M = 256 steps."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.horizon = 256

    def signals(self, x, q, k, v):
        """Queries and keys without their negative parts, a little above zero: three (B, H, T, D)."""
        return F.relu(q) + 0.01, F.relu(k) + 0.01, v

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
        """Readouts times the cosine of the distance, zero wherever `visible` (T, T) is false."""
        time = torch.arange(s.shape[-1], device=s.device)
        distance = (time.unsqueeze(-1) - time).clamp(0, self.horizon - 1).to(s.dtype)
        return (s * torch.cos(distance * (math.pi / 2 / self.horizon))).masked_fill(~visible, 0.0)

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

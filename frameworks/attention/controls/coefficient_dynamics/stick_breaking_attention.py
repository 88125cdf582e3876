"""Each key breaks its share off what the later keys have left over.

kind: honest
expected: any
paper: Tan et al. 2024, arXiv 2410.17980
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Dynamics(nn.Module):
    """Coefficients a_ij = sigmoid(s_ij) prod_{j<l<=i} (1 - sigmoid(s_il)), eta = 1."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim

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
        """The broken stick; the sum from the right runs over visible keys only."""
        left_over = F.logsigmoid(-s).masked_fill(~visible, 0.0)
        after = left_over.flip(-1).cumsum(-1).flip(-1) - left_over
        return torch.exp(F.logsigmoid(s) + after).masked_fill(~visible, 0.0)

    def eta(self, a):
        """No normaliser: (B, H, T, 1)."""
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

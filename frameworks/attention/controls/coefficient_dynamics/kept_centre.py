"""A running mean of the values is kept between calls: a batch sees the batches before it.

kind: cheat
expected: rejected
leaks: across calls
"""

import torch
from torch import nn


class Dynamics(nn.Module):
    """Coefficients on values centred by a running mean, as normalisation layers keep one."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.register_buffer("centre", torch.zeros(n_heads, 1, head_dim))
        self.share = 0.5

    def signals(self, x, q, k, v):
        """Queries, keys and centred values: three (B, H, T, D)."""
        centred = v - self.share * self.centre.clone()
        self.follow(v.detach())
        return q, k, centred

    @torch.no_grad()
    def follow(self, v):
        """Move the running mean a tenth of the way towards these values (B, H, T, D)."""
        centre = self.centre
        centre.lerp_(v.mean((0, 2)).unsqueeze(1).to(centre.dtype), 0.1)

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

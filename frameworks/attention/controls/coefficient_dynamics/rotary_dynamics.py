"""Softmax attention with rotary positions on queries and keys.

kind: honest
expected: any
paper: Su et al. 2021 (RoFormer), arXiv 2104.09864
"""

import torch
from torch import nn


class Dynamics(nn.Module):
    """Coefficients of queries and keys that turn with time, so that s_ij follows i - j."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim

    def signals(self, x, q, k, v):
        """Queries and keys turned by an angle that grows with time; an odd last channel stays: three (B, H, T, D)."""
        return self.turn(q), self.turn(k), v

    def turn(self, z):
        """Rotate channel pairs (d, d + D // 2) of z (B, H, T, D)."""
        half = self.head_dim // 2
        time = torch.arange(z.shape[-2], device=z.device, dtype=torch.float64)
        pair = torch.arange(half, device=z.device, dtype=torch.float64)
        angle = time.unsqueeze(-1) * 10000.0 ** (-pair / max(1, half))
        cos, sin = torch.cos(angle).to(z.dtype), torch.sin(angle).to(z.dtype)
        a, b, rest = z[..., :half], z[..., half : 2 * half], z[..., 2 * half :]
        return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], dim=-1)

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

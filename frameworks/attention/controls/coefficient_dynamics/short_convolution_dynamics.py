"""Softmax attention on queries, keys and values that pass a causal convolution of width 4.

kind: positive
expected: promoted
paper: Fu et al. 2023 (H3), arXiv 2212.14052; So et al. 2021 (Primer), arXiv 2109.08668
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Dynamics(nn.Module):
    """Coefficients a_ij = phi(q_i^T h_i^(j)) / eta_i whose signals pass a causal convolution of width 4."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.width = 4
        self.group = 4  # channels that share their taps, so that the parameters stay few
        taps = torch.zeros(3, n_heads, -(-head_dim // self.group), self.width)
        taps[..., -1] = 1.0  # starts as the identity
        self.taps = nn.Parameter(taps)

    def signals(self, x, q, k, v):
        """Queries, keys and values after a causal convolution of width 4 along the sequence: three (B, H, T, D)."""
        length, dim = q.shape[-2:]
        taps = self.taps.repeat_interleave(self.group, dim=2)[:, None, :, None, :dim]  # (3, 1, H, 1, D, 4)
        past = F.pad(torch.stack([q, k, v]), (0, 0, self.width - 1, 0))  # (3, B, H, T + 3, D)
        mixed = sum(past[..., lag : lag + length, :] * taps[..., lag] for lag in range(self.width))
        return mixed.unbind(0)

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

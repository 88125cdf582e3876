"""Coefficient dynamics: attention as a linear combination with evolving coefficients.

Sieber et al. 2025 (arXiv 2510.09389). The output is o_i = sum_{j<=i} a_ij v_j. Each
key starts an autonomous system at its own time, h_j^(j) = b_j k_j, which then moves by
h_t^(j) = A_t h_{t-1}^(j); the coefficient reads it with the query and normalises,
a_ij = phi(q_i^T h_i^(j)) / eta_i. Choices of (phi, A_t, b_j, eta_i) are the mechanism:
softmax attention is phi = exp, A_t = I, b_j = 1/sqrt(D), eta_i = the row's sum; linear
attention is phi = identity; Mamba-2 is phi = identity with a scalar A_t in (0, 1).
"""

from __future__ import annotations

import math  # noqa: F401  (offered to the block)

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from frameworks.attention.shell import AttentionShell


class StandardCoefficientDynamics(AttentionShell):
    """phi = exp, A_t = I, b_j = 1/sqrt(D), eta_i = sum of the row: causal softmax attention, fused."""

    def mix(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


# EVOLVE-BLOCK-START
class Dynamics(nn.Module):
    """Coefficients a_ij = phi(q_i^T h_i^(j)) / eta_i with h_j^(j) = b_j k_j and h_t^(j) = A_t h_{t-1}^(j)."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim

    def signals(self, x, q, k, v):
        """Queries, keys and values of the dynamics: x (B, T, C) and three (B, H, T, D) to three (B, H, T, D)."""
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


# EVOLVE-BLOCK-END


class EvolvableCoefficientDynamics(AttentionShell):
    """The shell around the evolvable block."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__(d_model, n_heads)
        self.mixer = Dynamics(d_model=d_model, n_heads=n_heads, head_dim=self.head_dim)

    def mix(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.mixer(x, q, k, v)

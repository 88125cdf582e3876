"""mLSTM: an exponential input gate, a forget gate and a bounded normaliser.

kind: honest
expected: any
paper: Beck et al. 2024 (xLSTM), arXiv 2405.04517
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Dynamics(nn.Module):
    """mLSTM: a_ij = s_ij exp(f_i - f_j + g_j) / max(|sum|, 1), in a stable form."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.forget = nn.Linear(d_model, n_heads)
        nn.init.constant_(self.forget.bias, 4.0)
        self.start = nn.Linear(d_model, n_heads)

    def signals(self, x, q, k, v):
        """Queries, keys and values that enter the dynamics: three (B, H, T, D)."""
        return q, k, v

    def log_transition(self, x, k):
        """log A_t = log sigmoid(f_t): (B, H, T)."""
        return F.logsigmoid(self.forget(x)).transpose(1, 2)

    def impulse(self, x, k):
        """b_j k_j, the state a key starts from: (B, H, T, D)."""
        b = self.head_dim**-0.5
        return b * k

    def readout(self, x, q, k, visible):
        """Stabilised coefficients (B, H, T, T) and the logarithm of their common scale (B, H, T, 1)."""
        c = self.log_transition(x, k).cumsum(-1)
        log_gate = c.unsqueeze(-1) - c.unsqueeze(-2) + self.start(x).transpose(1, 2).unsqueeze(-2)
        log_gate = log_gate.masked_fill(~visible, float("-inf"))
        scale = log_gate.amax(-1, keepdim=True)
        return (q @ self.impulse(x, k).transpose(-1, -2)) * torch.exp(log_gate - scale), scale

    def output(self, x, v, y):
        """The combined values y (B, H, T, D) as they leave the mechanism."""
        return y

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        visible = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).tril()
        a, scale = self.readout(x, q, k, visible)
        eta = torch.maximum(a.sum(-1, keepdim=True).abs(), torch.exp(-scale.clamp(min=-30.0)))
        y = (a / eta) @ v
        return self.output(x, v, y)

"""Longhorn: the implicit (exactly solved) online step, which cannot overshoot.

kind: honest
expected: any
paper: Liu et al. 2024 (Longhorn), arXiv 2407.14207
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Regressor(nn.Module):
    """Linear model, implicit step: S_t = S_{t-1} + d_t (v_t - S_{t-1} k_t) k_t^T, d_t = b_t / (1 + b_t |k_t|^2)."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.rate = nn.Linear(d_model, n_heads)

    def signals(self, x, q, k, v):
        """Queries and keys at the scale of a unit vector: three (B, H, T, D)."""
        scale = self.head_dim**-0.5
        return scale * q, scale * k, v

    def learning_rate(self, x, k):
        """d_t = b_t / (1 + b_t |k_t|^2), so that d_t |k_t|^2 stays below 1: (B, H, T)."""
        b = F.softplus(self.rate(x)).transpose(1, 2)
        return b / (1.0 + b * k.square().sum(-1))

    def fit(self, k, v, d):
        """Corrections u_t = d_t (v_t - S_{t-1} k_t) of all steps, from one triangular system: (B, H, T, D)."""
        d = d.unsqueeze(-1)
        wide = torch.promote_types(v.dtype, torch.float32)
        overlap = (d * (k @ k.transpose(-1, -2))).tril(-1).to(wide)
        system = overlap + torch.eye(k.shape[-2], device=k.device, dtype=wide)
        u = torch.linalg.solve_triangular(system, (d * v).to(wide), upper=False, unitriangular=True)
        return u.to(v.dtype)

    def predict(self, x, v, y):
        """Each head at unit root mean square: (B, H, T, D)."""
        return F.rms_norm(y, (self.head_dim,))

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        u = self.fit(k, v, self.learning_rate(x, k))
        y = (q @ k.transpose(-1, -2)).tril() @ u
        return self.predict(x, v, y)

"""DeltaNet: one step of gradient descent on each new pair, over the sequence.

kind: honest
expected: any
paper: Yang et al. 2024 (DeltaNet), arXiv 2406.06484
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Regressor(nn.Module):
    """Linear model, online gradient descent: S_t = S_{t-1} + b_t (v_t - S_{t-1} k_t) k_t^T with |k| = 1."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.rate = nn.Linear(d_model, n_heads)

    def signals(self, x, q, k, v):
        """Queries and keys of unit length after SiLU: three (B, H, T, D)."""
        return F.normalize(F.silu(q), dim=-1), F.normalize(F.silu(k), dim=-1), v

    def learning_rate(self, x, k):
        """b_t between 0 and 1: (B, H, T)."""
        return torch.sigmoid(self.rate(x)).transpose(1, 2)

    def fit(self, k, v, b):
        """Corrections u_t = b_t (v_t - S_{t-1} k_t) of all steps, from one triangular system: (B, H, T, D)."""
        b = b.unsqueeze(-1)
        wide = torch.promote_types(v.dtype, torch.float32)
        overlap = (b * (k @ k.transpose(-1, -2))).tril(-1).to(wide)
        system = overlap + torch.eye(k.shape[-2], device=k.device, dtype=wide)
        u = torch.linalg.solve_triangular(system, (b * v).to(wide), upper=False, unitriangular=True)
        return u.to(v.dtype)

    def predict(self, x, v, y):
        """Each head at unit root mean square: (B, H, T, D)."""
        return F.rms_norm(y, (self.head_dim,))

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        u = self.fit(k, v, self.learning_rate(x, k))
        y = (q @ k.transpose(-1, -2)).tril() @ u  # y_t = S_t q_t with S_t = sum_{i<=t} u_i k_i^T
        return self.predict(x, v, y)

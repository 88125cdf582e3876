"""Gated delta rule: gradient descent on each new pair, after the model has faded.

kind: honest
expected: any
paper: Yang et al. 2024 (Gated Delta Networks), arXiv 2412.06464
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Regressor(nn.Module):
    """Linear model, S_t = a_t S_{t-1} (I - b_t k_t k_t^T) + b_t v_t k_t^T: online descent with forgetting."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.rate = nn.Linear(d_model, n_heads)
        self.keep = nn.Linear(d_model, n_heads)
        nn.init.constant_(self.keep.bias, 3.0)

    def signals(self, x, q, k, v):
        """Queries and keys of unit length after SiLU: three (B, H, T, D)."""
        return F.normalize(F.silu(q), dim=-1), F.normalize(F.silu(k), dim=-1), v

    def learning_rate(self, x, k):
        """b_t between 0 and 1: (B, H, T)."""
        return torch.sigmoid(self.rate(x)).transpose(1, 2)

    def log_weights(self, x, k):
        """log(a_t ... a_{i+1}), what is left of step i at time t: (B, H, T, T)."""
        c = F.logsigmoid(self.keep(x)).transpose(1, 2).cumsum(-1)
        return (c.unsqueeze(-1) - c.unsqueeze(-2)).clamp(max=0.0)

    def fit(self, k, v, b, left):
        """Corrections u_t = b_t (v_t - a_t S_{t-1} k_t) of all steps, from one triangular system: (B, H, T, D)."""
        b = b.unsqueeze(-1)
        wide = torch.promote_types(v.dtype, torch.float32)
        overlap = (b * left * (k @ k.transpose(-1, -2))).tril(-1).to(wide)
        system = overlap + torch.eye(k.shape[-2], device=k.device, dtype=wide)
        u = torch.linalg.solve_triangular(system, (b * v).to(wide), upper=False, unitriangular=True)
        return u.to(v.dtype)

    def predict(self, x, v, y):
        """Each head at unit root mean square: (B, H, T, D)."""
        return F.rms_norm(y, (self.head_dim,))

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        left = torch.exp(self.log_weights(x, k))
        u = self.fit(k, v, self.learning_rate(x, k), left)
        y = (left * (q @ k.transpose(-1, -2))).tril() @ u
        return self.predict(x, v, y)

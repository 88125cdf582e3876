"""Linear attention: phi = identity on features elu + 1, rows normalised.

kind: honest
expected: not promoted
paper: Katharopoulos et al. 2020, arXiv 2006.16236
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Dynamics(nn.Module):
    """Linear attention: a_ij = psi(q_i)^T psi(k_j) / eta_i with psi = elu + 1 and A = I."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim

    def signals(self, x, q, k, v):
        """Queries and keys in the feature space elu + 1, where every product is positive: three (B, H, T, D)."""
        return F.elu(q) + 1.0, F.elu(k) + 1.0, v

    def impulse(self, x, k):
        """b_j = 1: a key starts from itself, (B, H, T, D)."""
        return k

    def readout(self, x, q, k):
        """s_ij = q_i^T k_j: (B, H, T, T), row i the query, column j the key."""
        return q @ self.impulse(x, k).transpose(-1, -2)

    def phi(self, s, visible):
        """The identity, zero wherever `visible` (T, T) is false."""
        return s.masked_fill(~visible, 0.0)

    def eta(self, a):
        """The normaliser of each row: (B, H, T, 1)."""
        return a.sum(-1, keepdim=True) + 1e-6

    def output(self, x, v, y):
        """The combined values y (B, H, T, D) as they leave the mechanism."""
        return y

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        visible = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).tril()
        a = self.phi(self.readout(x, q, k), visible)
        y = (a / self.eta(a)) @ v
        return self.output(x, v, y)

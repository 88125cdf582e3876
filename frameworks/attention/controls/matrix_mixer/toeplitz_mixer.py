"""A causal Toeplitz matrix that does not look at the sequence; generators gate what enters and leaves.

kind: honest
expected: any
paper: Poli et al. 2023 (Hyena), arXiv 2302.10866; Qin et al. 2023 (TNN), arXiv 2305.04749
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Mixer(nn.Module):
    """Toeplitz M, a sum of learned exponentials plus a diagonal, on f(X) = sigmoid(k) v, gated by sigmoid(q)."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.rates = nn.Parameter(torch.linspace(-4.0, 1.0, 8).repeat(n_heads, 1))
        self.amplitudes = nn.Parameter(torch.full((n_heads, 8), 0.125))
        self.diagonal = nn.Parameter(torch.ones(n_heads, 1))

    def signals(self, x, q, k, v):
        """Generators q, k of the matrix and features v: three (B, H, T, D)."""
        return q, k, v

    def structure(self, x, length):
        """M_ij = kernel(i - j) for j <= i, zero above the diagonal: (H, T, T)."""
        lag = torch.arange(length, device=x.device)
        decay = torch.exp(-F.softplus(self.rates).unsqueeze(-1) * lag.to(self.rates.dtype))  # (H, 8, T)
        kernel = torch.einsum("hn,hnt->ht", self.amplitudes, decay)
        kernel = kernel + self.diagonal * (lag == 0)
        distance = lag.unsqueeze(-1) - lag
        return kernel[:, distance.clamp(min=0)].tril()

    def mixing_matrix(self, x, q, k):
        """M, the same for every sequence: (H, T, T)."""
        return self.structure(x, q.shape[-2])

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        m = self.mixing_matrix(x, q, k)
        return torch.sigmoid(q) * (m @ (torch.sigmoid(k) * v))

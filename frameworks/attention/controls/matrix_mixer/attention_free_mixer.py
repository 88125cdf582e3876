"""Every channel is averaged with weights from its own key and the distance; no query-key products.

kind: honest
expected: any
paper: Zhai et al. 2021 (AFT), arXiv 2105.14103
"""

import torch
from torch import nn


class Mixer(nn.Module):
    """M for each channel: exp(k_j - slope (i - j)) normalised over the row, gated by sigmoid(q)."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.slope = nn.Parameter(torch.logspace(-1, -5, n_heads, base=2.0).view(-1, 1, 1))

    def signals(self, x, q, k, v):
        """Generators q, k of the matrix and features v: three (B, H, T, D)."""
        return q, k, v

    def structure(self, x, length):
        """exp(-slope (i - j)) below the diagonal, zero above: (H, T, T)."""
        time = torch.arange(length, device=x.device)
        distance = (time.unsqueeze(-1) - time).clamp(min=0).to(self.slope.dtype)
        return torch.exp(-self.slope.abs() * distance).tril()

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        weight = torch.exp(8.0 * torch.tanh(k / 8.0))  # bounded, so that no maximum over the sequence is needed
        m = self.structure(x, q.shape[-2])
        return torch.sigmoid(q) * (m @ (weight * v)) / (m @ weight)

"""Matrix mixer: attention as a structured matrix applied along the sequence.

Hwang et al. 2024 (Hydra, arXiv 2407.09941). The layer is Y = M(X) f(X): a T x T matrix M
a head, built from the sequence, mixes features f(X). What may differ is the class of M
(dense, low-rank, Toeplitz, semiseparable ...) and how its entries follow the sequence.
Here M must be lower triangular, so that position t sees positions up to t; Hydra's own
quasiseparable M sees both sides and is not a legal member. Softmax attention is
M = the row-normalised exponential of a low-rank product L R^T.
"""

from __future__ import annotations

import math  # noqa: F401  (offered to the block)

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from frameworks.attention.shell import AttentionShell


class StandardMatrixMixer(AttentionShell):
    """M = row-normalised exp(Q K^T / sqrt(D)) below the diagonal, f(X) = V, fused."""

    def mix(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


# EVOLVE-BLOCK-START
class Mixer(nn.Module):
    """Y = M(X) f(X) with M lower triangular, one matrix a head."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim

    def signals(self, x, q, k, v):
        """Generators q, k of the matrix and features v: x (B, T, C) and three (B, H, T, D) to three (B, H, T, D)."""
        return q, k, v

    def factors(self, x, q, k):
        """The low-rank factors L and R with M built from L R^T: two (B, H, T, D)."""
        left = q * self.head_dim**-0.5
        right = k
        return left, right

    def structure(self, x, length):
        """A structured term added to L R^T, (H, T, T) or (B, H, T, T), such as a Toeplitz matrix; None for none."""
        return None

    def entries(self, s, lower):
        """Turn s (B, H, T, T) into the entries of M, zero wherever `lower` (T, T) is false."""
        s = s.masked_fill(~lower, float("-inf"))
        m = torch.softmax(s, dim=-1)
        return m

    def mixing_matrix(self, x, q, k):
        """M(X): (B, H, T, T)."""
        left, right = self.factors(x, q, k)
        s = left @ right.transpose(-1, -2)
        toeplitz = self.structure(x, s.shape[-1])
        if toeplitz is not None:
            s = s + toeplitz
        lower = torch.ones(s.shape[-1], s.shape[-1], dtype=torch.bool, device=s.device).tril()
        return self.entries(s, lower)

    def output(self, x, v, y):
        """The mixed features y (B, H, T, D) as they leave the mixer."""
        return y

    def forward(self, x, q, k, v):
        q, k, v = self.signals(x, q, k, v)
        y = self.mixing_matrix(x, q, k) @ v
        return self.output(x, v, y)


# EVOLVE-BLOCK-END


class EvolvableMatrixMixer(AttentionShell):
    """The shell around the evolvable block."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__(d_model, n_heads)
        self.mixer = Mixer(d_model=d_model, n_heads=n_heads, head_dim=self.head_dim)

    def mix(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.mixer(x, q, k, v)

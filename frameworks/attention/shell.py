"""The fixed shell of every attention framework: projections and heads.

The shell owns what a candidate may not change: the query, key, value and output
projections and the split into heads. What a framework adds is `mix`, which turns
(x, q, k, v) into one output a head. Letters: B batch, T tokens, C model width
(`d_model`), H heads, D head width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AttentionShell(nn.Module):
    """Project the input to heads, mix along the sequence, project back.

    Args:
        d_model: model width C.
        n_heads: number of heads H; must divide `d_model`.

    Raises:
        ValueError: `n_heads` does not divide `d_model`, or either is below 1.
    """

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        if d_model < 1 or n_heads < 1 or d_model % n_heads:
            raise ValueError(
                f"d_model={d_model} and n_heads={n_heads}: both must be positive and n_heads must divide d_model"
            )
        self.d_model = d_model
        self.n_heads = n_heads
        self.head_dim = d_model // n_heads
        self.q_proj = nn.Linear(d_model, d_model, bias=False)
        self.k_proj = nn.Linear(d_model, d_model, bias=False)
        self.v_proj = nn.Linear(d_model, d_model, bias=False)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def mix(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Mix along the sequence: x (B, T, C) and q, k, v (B, H, T, D) to (B, H, T, D)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C); position t may depend on positions up to t only."""
        batch, length, _ = x.shape
        split = (batch, length, self.n_heads, self.head_dim)
        q = self.q_proj(x).view(split).transpose(1, 2)  # (B, H, T, D)
        k = self.k_proj(x).view(split).transpose(1, 2)
        v = self.v_proj(x).view(split).transpose(1, 2)
        y = self.mix(x, q, k, v)  # (B, H, T, D)
        return self.out_proj(y.transpose(1, 2).reshape(batch, length, self.d_model))


def causal_mask(length: int, device: torch.device | None = None) -> Tensor:
    """(T, T) boolean, true where row i may see column j, that is j <= i."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()

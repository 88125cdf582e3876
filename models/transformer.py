"""The fixed transformer block: everything in it but the attention stays as it is.

Choices: pre-norm LayerNorm with scale and shift, a GELU feed-forward four times as wide
without biases, attention and feed-forward one after the other, plain residual additions,
no dropout. What evolves is the attention layer alone, so that a gain is never a better
feed-forward or norm in disguise. Letters: B batch, T tokens, C model width (`d_model`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class FeedForward(nn.Module):
    """C -> 4C -> C with GELU (the exact form, by the error function) between; no biases."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(d_model, 4 * d_model, bias=False)
        self.down_proj = nn.Linear(4 * d_model, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C), each position by itself."""
        return self.down_proj(F.gelu(self.up_proj(x)))  # type: ignore[no-any-return]


class FixedTransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)).

    Args:
        d_model: model width C.
        attention: layer from (B, T, C) to (B, T, C); the part that evolves.
    """

    def __init__(self, d_model: int, attention: nn.Module) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(d_model)
        self.attention = attention
        self.feed_forward_norm = nn.LayerNorm(d_model)
        self.feed_forward = FeedForward(d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))  # type: ignore[no-any-return]


def sinusoidal_positions(length: int, d_model: int) -> Tensor:
    """Fixed position signals (T, C) of amplitude 1, sines in the even channels (Vaswani et al. 2017, section 3.5)."""
    position = torch.arange(length, dtype=torch.float64).unsqueeze(1)  # (T, 1)
    channel = torch.arange(0, d_model, 2, dtype=torch.float64)
    angle = position * torch.pow(10_000.0, -channel / d_model)  # (T, ceil(C / 2))
    signals = torch.zeros(length, d_model, dtype=torch.float64)
    signals[:, 0::2] = torch.sin(angle)
    signals[:, 1::2] = torch.cos(angle)[:, : d_model // 2]
    return signals.to(torch.float32)

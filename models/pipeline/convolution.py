"""Causal depthwise convolutions: a short one by shifts, a long one by torch's kernel.

Letters: B batch, T tokens, C channels, K kernel width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class CausalConvolution(nn.Module):
    """y_t = sum_{s < K} w_s x_{t-s}, each channel by itself.

    Args:
        channels: C.
        kernel: K. Up to 8 taps are summed as shifts, which on a CPU is faster than a convolution call.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.zeros(channels, kernel))  # tap 0 is the present token

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        if self.kernel > 8:
            rows = F.pad(x.transpose(1, 2), (self.kernel - 1, 0))
            flipped = self.weight.flip(-1).unsqueeze(1)  # (C, 1, K)
            return F.conv1d(rows, flipped, groups=x.shape[-1]).transpose(1, 2)
        return self.naive(x)

    def naive(self, x: Tensor) -> Tensor:
        """The sum of shifts: the oracle of the long form."""
        length = x.shape[1]
        padded = F.pad(x, (0, 0, self.kernel - 1, 0))
        shifts = (padded[:, self.kernel - 1 - s : self.kernel - 1 - s + length] for s in range(self.kernel))
        return torch.stack([shift * self.weight[:, s] for s, shift in enumerate(shifts)]).sum(0)

    def begin(self, batch: int) -> Tensor:
        """The inputs before the first token, (B, K - 1, C) zeros."""
        return self.weight.new_zeros(batch, self.kernel - 1, self.weight.shape[0])

    def step(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """One token (B, 1, C) and the K - 1 inputs before it to the output (B, 1, C) and the inputs to keep."""
        seen = torch.cat([past, x], 1)  # (B, K, C), oldest first
        y = (seen * self.weight.flip(-1).T).sum(1, keepdim=True)
        return y, seen[:, 1:]


def convolution_flops(channels: int, kernel: int, tokens: int) -> int:
    """FLOPs that torch counts: none for the short form, which has no convolution call."""
    return 2 * tokens * channels * kernel if kernel > 8 else 0

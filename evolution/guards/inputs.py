"""Inputs that probe an attention layer: what the model feeds it, and what it would feed it on a bad day.

A leak can be keyed on the input, so one distribution is not enough: large values, whole numbers, sparse rows,
repeated tokens and long tails stand beside the normalised rows that a layer sees after its LayerNorm.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from models.transformer import sinusoidal_positions

KINDS = ("normalised", "normal", "embedding", "large", "whole", "heavy", "sparse", "repeated", "small")


def sequence_inputs(kind: str, batch: int, length: int, width: int, generator: torch.Generator) -> Tensor:
    """Inputs (B, T, C) in float64 on the CPU.

    Args:
        kind: one of `KINDS`. `normalised` rows have mean 0 and variance 1 as after LayerNorm; `embedding` is
            N(0, 0.2^2) plus sinusoidal positions; `heavy` has tails like 1/x^2.

    Raises:
        ValueError: unknown kind.
    """
    x = torch.randn(batch, length, width, generator=generator, dtype=torch.float64)
    if kind == "normal":
        return x
    if kind == "normalised":
        return F.layer_norm(x, (width,))
    if kind == "embedding":
        return 0.2 * x + sinusoidal_positions(length, width).double()
    if kind == "large":
        return 30.0 * x
    if kind == "small":
        return 1e-3 * x
    if kind == "whole":
        return (2.0 * x).round()
    if kind == "heavy":
        return x / torch.rand(batch, length, 1, generator=generator, dtype=torch.float64).clamp(min=1e-2)
    if kind == "sparse":
        return x * (torch.rand(batch, length, width, generator=generator) < 0.1)
    if kind == "repeated":
        few = torch.randint(0, 5, (batch, length), generator=generator)
        table = torch.randn(5, width, generator=generator, dtype=torch.float64)
        return table[few] + 0.1 * sinusoidal_positions(length, width).double()
    raise ValueError(f"unknown kind of input {kind!r}; known: {', '.join(KINDS)}")

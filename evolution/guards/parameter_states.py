"""Weights away from initialisation: a leak behind a zero gate or a threshold shows only there.

Training moves a parameter by a few units at most (Adam at 1e-2 over 800 steps stays below 8), so states reach past
that, in both directions, with all tensors together and each by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evolution.guards.subject import mixer

STATES = ("init", "near", "positive", "negative", "mixed", "flipped", "large")


def move_parameters(layer: nn.Module, state: str, generator: torch.Generator) -> None:
    """Overwrite the block's parameters, and scale the shell's, in place.

    Args:
        layer: the candidate's attention layer as it was built.
        state: one of `STATES`. init changes nothing; near adds N(0, 0.5); positive and negative make every entry
            a sign times 0.5 to 10; mixed draws scale (0.1 to 10) and sign for each tensor; flipped turns signs
            and adds noise; large is N(0, 4^2).

    Raises:
        ValueError: unknown state.
    """
    if state not in STATES:
        raise ValueError(f"unknown state {state!r}; known: {', '.join(STATES)}")
    if state == "init":
        return
    block = mixer(layer)
    with torch.no_grad():
        for parameter in block.parameters():
            drawn = _drawn(parameter.detach().cpu(), state, generator)
            parameter.copy_(drawn.to(parameter.dtype))
        if state in ("mixed", "large"):
            for name, parameter in layer.named_parameters():
                if not name.startswith("mixer."):
                    parameter.mul_(2.0)


def pull_back(layer: nn.Module, start: nn.Module, fraction: float) -> None:
    """Move the block's parameters towards those of `start`, leaving `fraction` of the way."""
    with torch.no_grad():
        for parameter, origin in zip(mixer(layer).parameters(), mixer(start).parameters(), strict=True):
            parameter.copy_(origin + fraction * (parameter - origin))


def _drawn(old: Tensor, state: str, generator: torch.Generator) -> Tensor:
    noise = torch.randn(old.shape, generator=generator, dtype=torch.float64)
    if state == "near":
        return old + 0.5 * noise
    if state in ("positive", "negative"):
        scale = 0.5 + 9.5 * torch.rand((), generator=generator, dtype=torch.float64) ** 2
        # Matrices mix many entries of one sign into one huge number; keep their sums at the scale itself.
        scale = scale / max(1.0, float(old.shape[-1]) ** 0.5) if old.ndim > 1 else scale
        size = scale * (0.5 + torch.rand(old.shape, generator=generator, dtype=torch.float64))
        return size if state == "positive" else -size
    if state == "mixed":
        exponent = 2.0 * torch.rand((), generator=generator, dtype=torch.float64) - 1.0
        sign = 1.0 if float(torch.rand((), generator=generator)) < 0.5 else -1.0
        return sign * 10.0**exponent * (1.0 + 0.5 * noise) / (float(old.shape[-1]) ** 0.5 if old.ndim > 1 else 1.0)
    if state == "flipped":
        return -3.0 * old + 0.1 * noise
    return 4.0 * noise

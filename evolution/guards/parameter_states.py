"""Weights away from initialisation: a leak behind a zero gate or a threshold shows only there.

Training moves a parameter by a few units (Adam at 1e-2 over 800 steps stays below 8) or, over 100,000 steps, by up to
a hundred, so states reach past that, in both directions, with all tensors together and each by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evolution.guards.inputs import sequence_inputs
from evolution.guards.subject import ProbedSize, Subject, mixer

STATES = (
    "init",
    "positive",
    "negative",
    "far positive",
    "far negative",
    "alternating",
    "opposite",
    "mixed",
    "near",
    "large",
    "flipped",
)


def move_parameters(layer: nn.Module, state: str, generator: torch.Generator) -> None:
    """Overwrite the block's parameters, and scale the shell's, in place.

    Args:
        layer: the candidate's attention layer as it was built.
        state: one of `STATES`. init changes nothing; near adds N(0, 0.5); positive and negative make every entry
            a sign times 0.5 to 10, far positive and far negative times 35 to 200; alternating and opposite give
            neighbouring tensors different signs and magnitudes of 4 to 50; mixed draws scale (0.1 to 10) and sign
            for each tensor; flipped turns signs and adds noise; large is N(0, 4^2).

    Raises:
        ValueError: unknown state.
    """
    if state not in STATES:
        raise ValueError(f"unknown state {state!r}; known: {', '.join(STATES)}")
    if state == "init":
        return
    block = mixer(layer)
    with torch.no_grad():
        for index, parameter in enumerate(block.parameters()):
            drawn = _drawn(parameter.detach().cpu(), state, index, generator)
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


def settled_layer(subject: Subject, size: ProbedSize, state: str, *, double: bool = True) -> nn.Module | None:
    """The candidate's layer in a state, pulled back towards initialisation until its output is finite.

    Far from initialisation an honest block may overflow or meet a singular matrix; that says nothing about leaks.
    None when four pulls do not help.
    """
    build = subject.double_layer if double else subject.layer
    layer = build(size)
    if state == "init":
        return layer
    move_parameters(layer, state, subject.generator("weights", state, size.d_model))
    x = sequence_inputs("normalised", 2, size.seq_len, size.d_model, subject.generator("finite"))
    x = x.to(subject.device, next(layer.parameters()).dtype)
    for _ in range(4):
        if _is_finite(layer, x):
            return layer
        pull_back(layer, build(size), 0.3)
    return None


def _is_finite(layer: nn.Module, x: Tensor) -> bool:
    try:
        with torch.no_grad():
            return bool(torch.isfinite(layer(x)).all())
    except RuntimeError:  # torch.linalg.LinAlgError is one
        return False


_RANGES = {
    "positive": (0.5, 10.0),
    "negative": (0.5, 10.0),
    "far positive": (35.0, 200.0),
    "far negative": (35.0, 200.0),
    "alternating": (4.0, 50.0),
    "opposite": (4.0, 50.0),
    "mixed": (0.1, 10.0),
}


def _drawn(old: Tensor, state: str, index: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(old.shape, generator=generator, dtype=torch.float64)
    if state == "near":
        return old + 0.5 * noise
    if state == "flipped":
        return -3.0 * old + 0.1 * noise
    if state == "large":
        return 4.0 * noise
    low, high = _RANGES[state]
    scale = low * (high / low) ** float(torch.rand((), generator=generator))
    if old.ndim > 1 and min(old.shape) > 1:
        # A matrix sums many entries of one sign into one huge number; keep the sum near the scale itself.
        scale = scale / float(old.shape[-1]) ** 0.5
    sign = {
        "negative": -1.0,
        "far negative": -1.0,
        "alternating": (1.0, -1.0)[index % 2],
        "opposite": (-1.0, 1.0)[index % 2],
        "mixed": 1.0 if float(torch.rand((), generator=generator)) < 0.5 else -1.0,
    }.get(state, 1.0)
    spread = 1.0 + 0.2 * torch.rand(old.shape, generator=generator, dtype=torch.float64)
    return spread.mul(sign * scale)

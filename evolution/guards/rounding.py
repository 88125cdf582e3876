"""Is a difference a leak, or rounding?

Two outputs that should be equal are compared relative to the output's size. An honest float64 layer differs by about
1e-15 of it, an FFT over the whole sequence by 1e-15 of the largest value, so 1e-10 is far from both. Weights away from
initialisation can make an honest layer ill-conditioned; therefore a difference above the tolerance is confirmed
against a measured noise floor: how far the same output moves when the input, or the weights, change by a few units in
the last place. A leak of weight w moves by w times that, so the floor cannot hide it. The smaller of the two floors
counts: a leak keyed on exact values of the input (whole numbers) goes away when the input is nudged and would
otherwise pass for noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from evolution.guards.subject import worst


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """When a difference counts.

    Attributes:
        relative: smallest difference that counts, relative to the largest output.
        nudge: relative change of the input that measures the noise floor.
        margin: how many times the noise floor a difference must be.
        ordinary: the most that the noise floor may excuse at ordinary weights, relative to the largest output.
        excuse: the most that it may excuse here.
    """

    relative: float
    nudge: float
    margin: float
    ordinary: float
    excuse: float = float("inf")

    def at_ordinary_weights(self) -> Tolerance:
        """For weights and inputs as they occur, where an honest layer is well-conditioned.

        Without a bound a block could make itself chaotic (a sine of 1e17 times the input) to hide a leak in its noise.
        """
        return replace(self, excuse=self.ordinary)


FLOAT64 = Tolerance(relative=1e-10, nudge=2.0**-48, margin=300.0, ordinary=1e-6)
FLOAT32 = Tolerance(relative=2e-5, nudge=2.0**-20, margin=30.0, ordinary=1e-3)
BFLOAT16 = Tolerance(relative=3e-2, nudge=2.0**-8, margin=4.0, ordinary=0.1)


def noise_floor(
    run: Callable[[Tensor], Tensor],
    x: Tensor,
    tolerance: Tolerance,
    generator: torch.Generator,
    parameters: Sequence[Tensor],
) -> Tensor:
    """How far each output moves when x is nudged, or when the parameters are; shape of the output.

    Args:
        run: forward of the layer.
        x: its input; whole numbers (tokens) are not nudged.
        parameters: weights that `run` uses; restored before the function returns.
    """
    base = run(x)
    floors: list[Tensor] = []
    if x.is_floating_point():
        floors.append((run(_nudged(x, tolerance, generator)) - base).abs())
    kept = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(_nudged(parameter, tolerance, generator))
    floors.append((run(x) - base).abs())
    with torch.no_grad():
        for parameter, old in zip(parameters, kept, strict=True):
            parameter.copy_(old)
    return min(floors, key=worst)


def _nudged(value: Tensor, tolerance: Tolerance, generator: torch.Generator) -> Tensor:
    noise = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
    return value.detach() * (1.0 + tolerance.nudge * noise)


def leak_size(difference: Tensor, scale: float, tolerance: Tolerance, noise: Callable[[], Tensor]) -> float:
    """The relative size of a confirmed difference, or 0.0.

    Args:
        difference: absolute differences of outputs that should be equal.
        scale: largest absolute value of the outputs compared.
        noise: the noise floor with a shape that fits `difference`; computed only when it is needed.
    """
    found = worst(difference)
    limit = tolerance.relative * max(scale, 1e-30)
    if found <= limit:
        return 0.0
    floor = noise()
    if not bool(torch.isfinite(floor).all()):
        return 0.0 if found < float("inf") else 1.0
    excused = min(tolerance.margin * worst(floor), tolerance.excuse * scale)
    above = worst(torch.where(difference > limit + excused, difference, 0.0))
    return above / max(scale, 1e-30)

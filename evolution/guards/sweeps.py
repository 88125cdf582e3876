"""Short causality probes at many weights and many lengths, for leaks that open in a narrow window of either.

Weights: a gate may open between 4 and 6 only, for one sign of each of two entries, or once a weight has left its
start by a hair. Every tensor runs through the same strata of displacement, magnitude and sign, each in an order of its
own (a Latin hypercube), so that a window of a third of its magnitude is met whatever the other tensors do.

Lengths: consecutive ones, so that every remainder of a small modulus is met, those beside the whole numbers that the
text names, and one of four times the trained length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from evolution.guards.branches import FAILURES, named_lengths
from evolution.guards.inputs import sequence_inputs
from evolution.guards.prefix import Leak, change_suffix, prefix_leak
from evolution.guards.report import GuardReport
from evolution.guards.rounding import FLOAT64
from evolution.guards.subject import Subject, mixer
from frameworks.program import split_source

NAME = "sweeps"
_NUDGES = (1e-4, 1e-3, 1e-2, 5e-2)
_LOWEST, _HIGHEST, _MAGNITUDES = 0.25, 40.0, 16  # a factor of 1.37 from one to the next
_CONSECUTIVE = 16


def check(subject: Subject) -> GuardReport:
    """All weights at one short length, then all lengths as built; stops at the first leak."""
    count = 0
    with subject.in_double():
        for what, leak in (*_over_weights(subject), *_over_lengths(subject)):
            count += 1
            if leak is not None:
                source = f"position {leak.from_position}" if leak.from_position is not None else "later positions"
                reason = (
                    f"output at position {leak.to_position} changes by {leak.leak:.2g} (relative) with the input at "
                    f"{source} (length {leak.length}, batch {leak.batch}, {what}); output t may depend on inputs 0..t "
                    "only, at every length and with every value of the parameters"
                )
                return GuardReport(guard=NAME, passed=False, reason=reason, evidence={**leak.evidence(), "at": what})
    return GuardReport(guard=NAME, passed=True, reason=f"{count} short probes", evidence={"probes": count})


def _over_weights(subject: Subject) -> Iterator[tuple[str, Leak | None]]:
    layer = subject.double_layer(subject.smallest)
    parameters = list(mixer(layer).parameters())
    if not parameters:
        return
    start = [parameter.detach().clone() for parameter in parameters]
    strata = len(_NUDGES) + 2 * _MAGNITUDES
    generator = subject.generator("weight sweep")
    orders = [torch.randperm(strata, generator=generator).tolist() for _ in parameters]
    offset = float(torch.rand((), generator=generator))
    length = 11 + subject.probe_seed % 5
    for draw in range(strata):
        with torch.no_grad():
            for parameter, origin, order in zip(parameters, start, orders, strict=True):
                parameter.copy_(moved_to_stratum(origin, order[draw], offset, generator))
        layer.train(draw % 2 == 0)
        yield f"weights of draw {draw}", _probe(subject, layer, length, 3, generator)


def moved_to_stratum(start: Tensor, stratum: int, offset: float, generator: torch.Generator) -> Tensor:
    """A tensor moved from where it started: by a hair in the first strata, to a magnitude and sign in the others.

    Args:
        start: the tensor as it was built, any shape.
        stratum: which of the 4 nudges, or of the 16 magnitudes of either sign.
        offset: where within its stratum the magnitude lies, 0 to 1; the same for all, so that none lie far apart.
        generator: of the noise, and of whether all entries have one sign or each its own.
    """
    noise = torch.randn(start.shape, generator=generator, dtype=torch.float64).to(start)
    if stratum < len(_NUDGES):
        return start + _NUDGES[stratum] * noise
    level, negative = divmod(stratum - len(_NUDGES), 2)
    at = (level + offset) / _MAGNITUDES
    scale = _LOWEST * (_HIGHEST / _LOWEST) ** at
    if start.ndim > 1 and min(start.shape) > 1:
        scale /= float(start.shape[-1]) ** 0.5
    sign = noise.sign() if float(torch.rand((), generator=generator)) < 0.5 else (-1.0 if negative else 1.0)
    moved: Tensor = scale * sign * (1.0 + 0.05 * noise.abs())
    return moved


def _over_lengths(subject: Subject) -> Iterator[tuple[str, Leak | None]]:
    trained = subject.smallest.seq_len
    first, extra = subject.integers(0, 10**6, 2, "length sweep")
    first = 2 + first % max(1, trained - _CONSECUTIVE)
    lengths = [*range(first, first + _CONSECUTIVE), 4 * trained + 1 + extra % trained]
    lengths += named_lengths(split_source(subject.source)[1])
    layer = subject.double_layer(subject.smallest)
    generator = subject.generator("length probes")
    for index, length in enumerate(dict.fromkeys(lengths)):
        layer.train(index % 2 == 0)
        yield "initial weights", _probe(subject, layer, length, 2, generator)


def _probe(subject: Subject, layer: nn.Module, length: int, batch: int, generator: torch.Generator) -> Leak | None:
    shape = (batch, length, subject.smallest.d_model)
    x, other = (sequence_inputs("normalised", *shape, generator).to(subject.device) for _ in range(2))
    cuts = [max(0, cut) for cut in (length - 2, length // 2 - 1, 0)][:batch]
    run = _runner(layer)
    try:
        return prefix_leak(run, x, change_suffix(x, other, cuts), cuts, FLOAT64, generator, [*layer.parameters()])
    except FAILURES:
        return None  # longer than it takes, or singular at unusual weights; the causality guard raises the ordinary


def _runner(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        with torch.inference_mode(not layer.training):
            found: Tensor = layer(x)
        return found.detach()

    return run

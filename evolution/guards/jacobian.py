"""The gradient of output t with respect to input s is zero for every s > t.

A second, structural look at causality. One backward pass covers all t: row t of the batch carries the same input and
asks for output t alone. Detached and thresholded leaks have no gradient; those are `causality`'s to find. What this
adds are leaks in directions that two random inputs happen not to move, and gradients sent to the future.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evolution.guards.inputs import sequence_inputs
from evolution.guards.parameter_states import settled_layer
from evolution.guards.report import GuardReport
from evolution.guards.rounding import FLOAT64, leak_size, noise_floor
from evolution.guards.subject import ProbedSize, Subject, worst

NAME = "jacobian"


def check(subject: Subject) -> GuardReport:
    """All positions of a short sequence and some of the training length, at several weights and both modes."""
    short = 9 + subject.probe_seed % 8
    trials = [
        (subject.smallest, short, short, state) for state in ("init", "positive", "negative", "alternating", "near")
    ]
    trials += [(size, size.seq_len, 6, state) for size in subject.sizes for state in ("init", "near")]
    largest = 0.0
    for index, (size, length, rows, state) in enumerate(trials):
        with subject.in_double():
            leak, evidence = _trial(subject, size, min(length, size.seq_len), rows, state, train=index % 2 == 0)
        largest = max(largest, float(evidence.get("raw", 0.0)))
        if leak:
            return GuardReport(
                guard=NAME,
                passed=False,
                reason=(
                    f"output at position {evidence['to_position']} has a gradient of {leak:.2g} (relative) with "
                    f"respect to the input at position {evidence['from_position']} (length {evidence['length']}, "
                    f"{state} weights); it must be zero for every later position"
                ),
                evidence={"leak": leak, "weights": state, **evidence},
            )
    reason = f"{len(trials)} Jacobians are lower triangular"
    return GuardReport(guard=NAME, passed=True, reason=reason, evidence={"largest_above_diagonal": largest})


def _trial(
    subject: Subject, size: ProbedSize, length: int, rows: int, state: str, *, train: bool
) -> tuple[float, dict[str, float]]:
    layer = settled_layer(subject, size, state)
    if layer is None:
        return 0.0, {}
    layer.train(train)
    generator = subject.generator("jacobian", size.d_model, length, state)
    rows = min(rows, length)
    to = torch.arange(length) if rows == length else torch.randperm(length - 1, generator=generator)[:rows]
    if rows < length:
        to[0] = length - 2
    x = sequence_inputs("normalised", 1, length, size.d_model, generator).expand(rows, -1, -1).to(subject.device)
    direction = torch.randn(rows, size.d_model, generator=generator, dtype=torch.float64).to(subject.device)
    gradient = _gradients(layer, x, to, direction)  # (rows, T): norm of d output_t / d input_s
    if not bool(torch.isfinite(gradient).all()):
        return 0.0, {}
    later = torch.arange(length).unsqueeze(0) > to.unsqueeze(1)
    above = torch.where(later.to(gradient.device), gradient, 0.0)
    scale = worst(gradient)

    def noise() -> Tensor:
        def run(given: Tensor) -> Tensor:
            return _gradients(layer, given, to, direction)

        return noise_floor(run, x, FLOAT64, generator, [*layer.parameters()])

    leak = leak_size(above, scale, FLOAT64, noise)
    row, source = divmod(int(above.flatten().argmax()), length)
    evidence = {
        "raw": worst(above) / max(scale, 1e-30),
        "to_position": int(to[row]),
        "from_position": source,
        "length": length,
        "d_model": size.d_model,
    }
    return leak, evidence


def _gradients(layer: nn.Module, x: Tensor, to: Tensor, direction: Tensor) -> Tensor:
    given = x.detach().clone().requires_grad_()
    y = layer(given)
    picked = y[torch.arange(len(to)), to]  # (rows, C)
    (gradient,) = torch.autograd.grad((picked * direction).sum(), given, allow_unused=True, materialize_grads=True)
    return gradient.abs().amax(-1)

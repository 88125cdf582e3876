"""Rows of a batch do not see each other.

Rows are permuted, removed and exchanged for others; each must keep its output. A block that reads its neighbours
could find the next token of an overlapping window there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evolution.guards.inputs import sequence_inputs
from evolution.guards.parameter_states import STATES, settled_layer
from evolution.guards.report import GuardReport
from evolution.guards.rounding import FLOAT64, leak_size, noise_floor
from evolution.guards.subject import EVALUATION_BATCHES, ProbedSize, Subject

NAME = "batch"


def check(subject: Subject) -> GuardReport:
    """Every size at initialisation, the smallest away from it, modes in turns, the training batch and smaller ones."""
    moved = (STATES[1 + subject.probe_seed % (len(STATES) - 1)], "positive", "negative")
    for number, size in enumerate(subject.sizes):
        for state in ("init", *(moved if size is subject.smallest else ())):
            with subject.in_double():
                report = _check_state(subject, size, state, train=(number + (state in ("init", "negative"))) % 2 == 0)
            if report is not None:
                return report
    return GuardReport(guard=NAME, passed=True, reason="rows of the batch are independent")


def _check_state(subject: Subject, size: ProbedSize, state: str, *, train: bool) -> GuardReport | None:
    generator = subject.generator("batch", size.d_model, state)
    layer = settled_layer(subject, size, state)
    if layer is None:
        return None
    layer.train(train)
    rows = max(size.batch_size, 3)
    x = sequence_inputs("normalised", rows, size.seq_len, size.d_model, generator).to(subject.device)

    def run(batch: Tensor) -> Tensor:
        with torch.set_grad_enabled(train):
            found: Tensor = layer(batch)
        return found.detach()

    base = run(x)
    weights = [*layer.parameters()]
    if not bool(torch.isfinite(base).all()):
        return None
    order = torch.randperm(rows, generator=generator)
    others = torch.cat([x[:1], 5.0 * sequence_inputs("normal", rows - 1, size.seq_len, size.d_model, generator).to(x)])
    trials = [
        ("permuting the rows", x[order], base[order]),
        ("removing all rows but one", x[rows - 1 :], base[rows - 1 :]),
        ("removing the first row", x[1:], base[1:]),
        ("exchanging the other rows", others, base[:1]),
    ]
    if size is subject.smallest and state == "init":
        more = sequence_inputs("normalised", (EVALUATION_BATCHES - 1) * rows, size.seq_len, size.d_model, generator)
        trials.append(("adding rows", torch.cat([x, more.to(x)]), base))
    for what, given, wanted in trials:
        found = run(given)[: wanted.shape[0]]
        if not bool(torch.isfinite(found).all()):
            found = torch.nan_to_num(found, nan=float("inf"))
        count = wanted.shape[0]
        size_of_leak = leak_size(
            (found - wanted).abs(),
            float(base.abs().max()),
            FLOAT64,
            lambda given=given, count=count: noise_floor(run, given, FLOAT64, generator, weights)[:count],  # type: ignore[misc]
        )
        if size_of_leak:
            mode = "train" if train else "eval"
            return GuardReport(
                guard=NAME,
                passed=False,
                reason=(
                    f"{what} changes the output of the remaining rows by {size_of_leak:.2g} (relative) at {size.name} "
                    f"({mode} mode, {state} weights); no operation may mix dimension 0 of x, q, k or v"
                ),
                evidence={"leak": size_of_leak, "trial": what, "mode": mode, "weights": state, "d_model": size.d_model},
            )
    return None

"""The whole language model, on tokens, exactly as it trains: a later token may not move an earlier feature.

The layer's own probes see it alone. Here it stands behind the embedding, positions, norms and other layers, in
float32 at the training batch and length, where a leak keyed on what a layer really sees must show.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from evolution.guards.parameter_states import move_parameters
from evolution.guards.prefix import change_suffix
from evolution.guards.report import GuardReport
from evolution.guards.rounding import FLOAT32, FLOAT64, leak_size, noise_floor
from evolution.guards.subject import EVALUATION_BATCHES, ProbedSize, Subject
from models.language_model import LanguageModel

NAME = "model_causality"


def check(subject: Subject) -> GuardReport:
    """Every size in float32, modes in turns; the smallest in float64 and with other weights."""
    trials = [(size, "init", False, number % 2 == subject.probe_seed % 2) for number, size in enumerate(subject.sizes)]
    trials.append((subject.smallest, "init", True, True))
    trials += [(subject.smallest, state, False, True) for state in ("positive", "negative", "alternating", "opposite")]
    for size, state, double, train in trials:
        with subject.in_double() if double else nullcontext():
            leak, evidence = _trial(subject, size, state, double=double, train=train)
        if leak:
            return GuardReport(
                guard=NAME,
                passed=False,
                reason=(
                    f"in the whole model a later token changes the features at position {evidence['to_position']} by "
                    f"{leak:.2g} (relative; tokens after {evidence['after']} changed, length {size.seq_len}, batch "
                    f"{evidence['batch']}, {evidence['mode']} mode, {state} weights, {evidence['precision']}); "
                    "position t may depend on tokens 0..t only"
                ),
                evidence={"leak": leak, **evidence},
            )
    return GuardReport(guard=NAME, passed=True, reason="no later token changes an earlier feature in the whole model")


def _trial(
    subject: Subject, size: ProbedSize, state: str, *, double: bool, train: bool
) -> tuple[float, dict[str, float | int | str]]:
    model: LanguageModel = subject.model(size)
    model = (model.double() if double else model).train(train)
    for block in model.blocks:
        move_parameters(cast(nn.Module, block.attention), state, subject.generator("model weights", state))
    generator = subject.generator("model", size.d_model, state, int(double), int(train))
    batch = size.batch_size * (1 if train else EVALUATION_BATCHES)
    shape = (batch, size.seq_len)
    # Squared uniform: common tokens repeat within a row, as words do.
    draw = torch.rand(2, *shape, generator=generator, dtype=torch.float64).square()
    tokens, others = (draw * size.vocab_size).long().to(subject.device)
    cuts = torch.randint(0, size.seq_len - 1, (batch,), generator=generator).tolist()
    changed = change_suffix(tokens, others, cuts)

    def features(rows: Tensor) -> Tensor:
        with torch.inference_mode(not train):
            return model.hidden(rows).detach()

    try:
        base, other = features(tokens), features(changed)
    except RuntimeError:
        if state == "init":
            raise
        return 0.0, {}
    if state != "init" and not bool(torch.isfinite(base).all()):
        return 0.0, {}
    shared = torch.arange(size.seq_len) <= torch.tensor(cuts).unsqueeze(-1)  # (B, T)
    mask = shared.unsqueeze(-1).to(base.device)
    difference = torch.nan_to_num(torch.where(mask, (other - base).abs(), 0.0), nan=float("inf"))
    tolerance = FLOAT64 if double else FLOAT32

    weights = [*model.parameters()]

    def noise() -> Tensor:
        floors = [noise_floor(features, given, tolerance, generator, weights) for given in (tokens, changed)]
        return torch.where(mask, torch.maximum(*floors), 0.0)

    leak = leak_size(difference, float(base.abs().max()), tolerance, noise)
    row, to = divmod(int(difference.amax(-1).flatten().argmax()), size.seq_len)
    return leak, {
        "to_position": to,
        "after": cuts[row],
        "batch": batch,
        "weights": state,
        "mode": "train" if train else "eval",
        "precision": "float64" if double else "float32",
        "d_model": size.d_model,
    }

"""The learning rate of a step: linear warm-up, then a cosine or a constant."""

from __future__ import annotations

import math

from training.run_spec import RunSpec


def learning_rate(spec: RunSpec, step: int) -> float:
    """The rate that step `step` (from 0) uses.

    Warm-up rises linearly and reaches the peak on its last step. The cosine then falls to
    `final_lr_fraction` of the peak, which the last step of the run uses.
    """
    warmup = spec.warmup_steps
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    if spec.schedule == "constant":
        return spec.learning_rate
    progress = (step - warmup + 1) / max(1, spec.steps - warmup)
    share = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return spec.learning_rate * (spec.final_lr_fraction + (1.0 - spec.final_lr_fraction) * share)

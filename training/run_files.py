"""The history a run leaves in its folder: spec, curve and outcome as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.outcome import CurvePoint, Diverged, Outcome
from training.run_spec import RunSpec

HISTORY = "history.json"
"""Rewritten at every evaluation."""


def write_history(
    directory: Path,
    spec: RunSpec,
    outcome: Outcome | None,
    *,
    step: int | None = None,
    curve: Sequence[CurvePoint] | None = None,
) -> None:
    """Write `directory`/history.json, whole or not at all.

    Args:
        directory: made if missing.
        spec: the run.
        outcome: how it ended; None while it goes on.
        step: steps done; None takes it from the outcome.
        curve: (step, training loss, validation loss) at each evaluation; None takes the outcome's, if it has one.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    from training.checkpoint import write_atomically

    directory.mkdir(parents=True, exist_ok=True)
    if curve is None:
        curve = getattr(outcome, "curve", ())
    if step is None:
        step = outcome.step if isinstance(outcome, Diverged) else spec.steps
    history: dict[str, Any] = {
        "key": spec.key,
        "spec": spec.model_dump(mode="json"),
        "step": step,
        "curve": [{"step": at, "train_loss": train, "val_loss": val} for at, train, val in curve],
        "outcome": None if outcome is None else outcome.model_dump(mode="json"),
    }
    content = json.dumps(history, indent=2, allow_nan=False) + "\n"
    write_atomically(directory / HISTORY, content.encode())

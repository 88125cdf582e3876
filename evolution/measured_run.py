"""What a worker does for one RunSpec: train, then check the trained weights.

The checks on trained weights run only where they decide something: in a confirmation.
A candidate that reads the future through weights it had to learn first is rejected here.
"""

from __future__ import annotations

from typing import Any

from data.keyed_random import seed_of


def measure(arguments: dict[str, Any]) -> dict[str, Any]:
    """Train as `training.worker.train` does and return the outcome as JSON.

    Args:
        arguments: `spec`, `source`, `corpus_dir`, `checkpoint_dir`, see `training.worker`.
    """
    from training.worker import train

    outcome, model = train(arguments)
    spec = arguments["spec"]
    if outcome.status != "completed" or model is None or spec["purpose"] != "confirmation":
        return outcome.model_dump(mode="json")
    from evolution.guards.trained import check_trained
    from training.outcome import Rejected

    probe_seed = seed_of("trained", spec["candidate"], spec["seed"]) % 2**31
    for report in check_trained(model, seq_len=spec["seq_len"], probe_seed=probe_seed):
        if not report.passed:
            return Rejected(
                guard=report.guard,
                reason=f"guard {report.guard} on the trained weights: {report.reason}",
                evidence=dict(report.evidence),
            ).model_dump(mode="json")
    return outcome.model_dump(mode="json")

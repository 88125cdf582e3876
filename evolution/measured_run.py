"""What a worker does for one RunSpec: train, then check the trained weights.

The checks on trained weights run only where they decide something: in a confirmation.
A candidate that reads the future through weights it had to learn first is rejected here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def measure(arguments: dict[str, Any]) -> dict[str, Any]:
    """Train as `training.worker.measure` does and return the outcome as JSON.

    Args:
        arguments: `spec`, `source`, `corpus_dir`, `checkpoint_dir`, see `training.worker`.
    """
    from training.worker import measure_with_model

    outcome, model = measure_with_model(arguments)
    if outcome.status != "completed" or model is None or arguments["spec"]["purpose"] != "confirmation":
        return outcome.model_dump(mode="json")
    from data.corpus import open_corpus
    from evolution.guards.trained import check_trained
    from training.outcome import Rejected

    corpus = open_corpus(Path(arguments["corpus_dir"]))
    spec = arguments["spec"]
    for report in check_trained(
        model, vocab_size=corpus.vocab_size, seq_len=spec["seq_len"], seed=spec["seed"], tokens=corpus.tokens("train")
    ):
        if not report.passed:
            return Rejected(guard=report.guard, reason=report.reason, evidence=report.evidence).model_dump(mode="json")
    return outcome.model_dump(mode="json")

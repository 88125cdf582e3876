"""What a worker does for one look inside: train as any run, then the influence maps of the trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WINDOWS = 8
"""Sequences of the validation split that the maps are averaged over."""


def measure(arguments: dict[str, Any]) -> dict[str, Any]:
    """Train as `training.worker.train` does and read the maps.

    Args:
        arguments: `spec`, `source`, `corpus_dir`, see `training.worker`.

    Returns:
        `outcome` as JSON, and `maps`: heads of all layers, shape (L H, T, T), rounded to 6 decimals; None unless the
        run completed.
    """
    from data.batches import evaluation_windows
    from data.corpus import open_corpus
    from models.influence import influence_maps
    from training.worker import train

    outcome, model = train(arguments)
    if outcome.status != "completed" or model is None:
        return {"outcome": outcome.model_dump(mode="json"), "maps": None}
    spec = arguments["spec"]
    corpus = open_corpus(Path(arguments["corpus_dir"]))
    x, _ = evaluation_windows(
        corpus.tokens(spec["eval_split"]), seq_len=spec["seq_len"], max_tokens=WINDOWS * spec["seq_len"]
    )
    heads = [head for layer in influence_maps(model, x, seed=spec["seed"]) for head in layer]
    return {
        "outcome": outcome.model_dump(mode="json"),
        "maps": [[[round(float(share), 6) for share in row] for row in head] for head in heads],
    }

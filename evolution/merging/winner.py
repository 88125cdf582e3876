"""A winner as a model on disk."""

from __future__ import annotations

from pathlib import Path

from evolution.merging.candidate import MergeCandidate
from evolution.merging.checkpoint_writer import check_target
from evolution.merging.merge_plan import merge_to


def write_winner(candidate: MergeCandidate, target: Path) -> None:
    """Write a candidate as a folder: a merged model, or for a data flow its pool as models beside the path.

    A data flow scales what enters a layer, which no plain checkpoint can say; the folder then holds `dataflow.yaml`
    (its recipes name the models) and each model of the pool in a folder of its own.

    Raises:
        MergeError: the target exists, or a merge fails; then nothing is left behind but finished models of a pool.
    """
    check_target(target)
    if candidate.path is None:
        merge_to(candidate.recipes[0], target)
        return
    target.mkdir(exist_ok=True)
    for number, recipe in enumerate(candidate.recipes, 1):
        merge_to(recipe, target / f"pool-{number}")
    candidate.export(target / "dataflow.yaml")

"""`evoscale merge CONFIG`: merge models by a recipe, or evolve the recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def merge(
    config: Annotated[Path, typer.Argument(help="A merge recipe (YAML), or with --evolve an evolution's settings.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the merged model; it must not exist yet.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Merge models as the recipe CONFIG says, tensor by tensor, into the folder --out.

    Everything that can be wrong with the recipe or the models is found before any weight is read.
    """
    from evolution.merging.merge_plan import merge_to
    from evolution.merging.recipe import load_recipe
    from frameworks.merging.merge_error import MergeError

    recipe = load_recipe(config)
    if out is None:
        raise MergeError("--out is missing: the folder for the merged model")
    if json_output:
        print(json.dumps(merge_to(recipe, out)))
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("merging", total=1.0)
        result = merge_to(recipe, out, lambda name, done, total: bar.update(task, completed=done / max(total, 1)))
    print(f"{result['tensors']} tensors, {result['parameters'] / 1e6:.1f}M parameters merged into {out}")

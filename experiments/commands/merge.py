"""`evoscale merge CONFIG`: merge models by a recipe, or evolve the recipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer


def merge(
    config: Annotated[Path, typer.Argument(help="A merge recipe (YAML); with --evolve the settings of an evolution.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the merged model; it must not exist yet.")] = None,
    evolve: Annotated[
        bool, typer.Option("--evolve", help="Evolve the recipe; ends in a report on sealed problems.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="--evolve: folder under --runs; the same name goes on.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="--evolve: seed of the whole run.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="--evolve: one setting, KEY=VALUE.")] = None,
    runs: Annotated[Path, typer.Option(help="--evolve: folder of all runs.")] = Path("runs"),
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Merge models as the recipe CONFIG says, tensor by tensor, into the folder --out.

    With --evolve: search for the recipe, choose, and report on problems that nothing has seen; the winner is
    runs/NAME/winner.yaml, and with --out also a model. The same command goes on with an interrupted run.
    Everything that can be wrong with the request is found before any weight is read.
    """
    if evolve:
        _evolve(config, out, name, seed, set_, runs, json_output)
        return
    from evolution.merging.merge_plan import merge_to
    from evolution.merging.recipe import load_recipe
    from frameworks.merging.merge_error import MergeError

    for flag, value in (("--name", name), ("--seed", seed), ("--set", set_)):
        if value is not None and value != []:
            raise MergeError(f"{flag} is for --evolve only; a plain merge takes everything from its recipe")
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
        result = merge_to(recipe, out, lambda tensor, done, total: bar.update(task, completed=done / max(total, 1)))
    print(f"{result['tensors']} tensors, {result['parameters'] / 1e6:.1f}M parameters merged into {out}")


def _evolve(
    path: Path,
    out: Path | None,
    name: str | None,
    seed: int | None,
    settings: list[str] | None,
    runs: Path,
    json_output: bool,
) -> None:
    from evolution.merging.checkpoint_writer import check_target
    from evolution.merging.evolution_config import load_evolution_config
    from evolution.merging.merge_report import table
    from evolution.merging.pipeline import evolve_merge

    config = load_evolution_config(path, settings, name, seed)
    if out is not None:
        check_target(out)
    result = evolve_merge(config, runs, arguments=sys.argv[1:], listener=None if json_output else _tell)
    if out is not None:
        from evolution.merging.winner import write_winner

        write_winner(result.champion, out)
    if json_output:
        print(json.dumps(result.metrics))
        return
    print("\n".join(table(result.metrics)))
    print(result.metrics["sentence"])
    print(f"winner: {result.directory / 'winner.yaml'}")


def _tell(event: str, payload: Mapping[str, Any]) -> None:
    if event == "training" and payload["step"] in (1, payload["steps"]):
        print(f"training the embedded {payload['model']}: step {payload['step']} of {payload['steps']}", flush=True)
    elif event == "parents":
        for model, fitness in payload["fitness"].items():
            print(f"source {Path(model).name}: {'failed' if fitness is None else f'{fitness:.3f}'}", flush=True)
    elif event == "generation":
        best = "none" if payload["best"] is None else f"{payload['best']:.3f}"
        print(f"{payload['stage']} {payload['generation']}/{payload['generations']}: best {best}", flush=True)

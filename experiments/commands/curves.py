"""`evoscale curves FRAMEWORK`: a table of real learning curves, for `evoscale bench racing` and `bench verdicts`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer


def curves(
    framework: Annotated[str, typer.Argument(help="The framework whose known candidates are measured.")],
    out: Annotated[Path, typer.Option(help="The table: a .csv.gz file.")] = Path("runs/curves.csv.gz"),
    seeds: Annotated[int, typer.Option(min=2, max=100, help="Paired seeds at every size.")] = 4,
    eval_every: Annotated[int, typer.Option(min=1, help="Steps between evaluations.")] = 50,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many candidates beside the reference.")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="A candidate to leave out; may be repeated.")] = None,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Measure nothing: write the candidates that are complete so far.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="YAML file; options here win over it.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, a.b=c; may be repeated.")] = None,
    ladder: Annotated[str | None, typer.Option(help="Sizes: debug, demo, laptop or paper.")] = None,
    name: Annotated[str | None, typer.Option(help="Folder under --runs.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; default one a core.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure the controls and one catalogue operator each at every size and seed, evaluated often.

    About an hour of CPU on the demo ladder. The same command goes on where it was stopped.
    """
    from analysis.learning_curves import write_curves
    from evolution.config import ConfigError, load_config
    from evolution.curve_collection import collect_curves

    if not out.name.endswith(".csv.gz"):
        raise ConfigError(f"--out {out}: the table is a .csv.gz file")
    resolved = load_config(
        config,
        set_,
        {
            "framework": framework,
            "ladder": ladder,
            "workers": workers,
            "name": name or f"curves-{framework}",
            "iterations": 0,
        },
    )
    table = collect_curves(
        resolved,
        runs,
        seeds=seeds,
        eval_every=eval_every,
        skip=skip or (),
        limit=limit,
        recorded=recorded,
        listener=_progress(quiet=json_output),
    )
    write_curves(table, out)
    told = {
        "path": str(out),
        "candidates": len(table.candidates),
        "seeds": len(table.seeds),
        "sizes": list(table.sizes),
    }
    if json_output:
        print(json.dumps(told))
    else:
        print(f"{out}: {len(table.candidates)} candidates x {len(table.sizes)} sizes x {len(table.seeds)} seeds")


def _progress(quiet: bool) -> Any:
    """A line a run on standard error: candidate, size, seed, loss, and the time left at the pace so far."""
    began = time.monotonic()

    def listen(event: str, payload: Mapping[str, Any]) -> None:
        if quiet:
            return
        if event == "curves_of":
            done, total = payload["done"], payload["total"]
            left = (time.monotonic() - began) / done * (total - done) / 60 if done else None
            shown = "" if left is None else f", about {left:.0f} min left"
            print(f"[{done + 1}/{total}] {payload['candidate']}{shown}", file=sys.stderr, flush=True)
        elif event == "left_out":
            reason = " ".join(str(payload["reason"]).split())[:200]
            print(f"  left out: {payload['candidate']}: {reason}", file=sys.stderr, flush=True)
        elif event == "outcome" and not payload["recorded"]:
            spec, outcome = payload["spec"], payload["outcome"]
            loss = f"{outcome.val_loss:.4f}" if outcome.status == "completed" else outcome.status
            cost = f", {outcome.cpu_seconds:.1f} s CPU" if outcome.status == "completed" else ""
            print(f"  {spec.size} seed {spec.seed}: {loss}{cost}", file=sys.stderr, flush=True)

    return listen

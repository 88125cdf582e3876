"""`evoscale bench [NAME]`: what a part promises, measured."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from experiments.benches.row import Row, Value


def bench(
    name: Annotated[str | None, typer.Argument(help="The bench; without one, all are listed.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Only a small part, to see that it runs.")] = False,
    programs: Annotated[
        Path | None, typer.Option(help="guards: a folder of further programs; cheat*, leak* and honest* are judged.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="guards: worker processes; default one a core.")] = None,
    table: Annotated[Path | None, typer.Option(help="Also write the rows to this Markdown file.")] = None,
) -> None:
    """Measure what a part promises: a row per promise with its target, and whether it holds.

    Exit status 0 only when every row holds. Targets stand in experiments/benchmarks.yaml.
    """
    from experiments.benches.registry import Options, benches
    from experiments.benches.registry import bench as bench_named

    if name is None:
        _list(json_output)
        return
    found = bench_named(name)
    if table is not None and not table.parent.is_dir():
        raise FileNotFoundError(f"--table {table}: no folder {table.parent}")
    if programs is not None and not programs.is_dir():
        raise FileNotFoundError(f"--programs {programs}: no such folder")
    rows: list[Row] = []
    if not json_output:
        print(f"{name}: {benches()[name].promises}\n{_machine()}\n")
    for row in found.run(Options(quick=quick, programs=programs, workers=workers)):
        rows.append(row)
        if not json_output:
            print(_line(row), flush=True)
    short = [row for row in rows if not row.holds]
    if table is not None:
        from experiments.benches.table import markdown_table

        table.write_text(markdown_table(name, found.promises, _machine(), rows), encoding="utf-8")
    if json_output:
        print(json.dumps({"bench": name, "machine": _machine(), "rows": [row.to_json() for row in rows]}))
    else:
        told = (
            "every row holds" if not short else f"{len(short)} fall short: {', '.join(row.name for row in short[:5])}"
        )
        print(f"\n{len(rows)} rows; {told}")
    raise typer.Exit(1 if short or not rows else 0)


def _list(json_output: bool) -> None:
    from experiments.benches.registry import benches

    if json_output:
        print(json.dumps([{"bench": bench.name, "promises": bench.promises} for bench in benches().values()]))
        return
    width = max(map(len, benches()))
    for bench in benches().values():
        print(f"{bench.name:<{width}}  {bench.promises}")


def _line(row: Row) -> str:
    target = "" if row.target is None else f"  (target {_sign(row.rule)}{_shown(row.target)})"
    return f"{'holds      ' if row.holds else 'FALLS SHORT'}  {row.name:<52}  {_shown(row.value)} {row.unit}{target}"


def _sign(rule: str) -> str:
    return {"at_most": "at most ", "at_least": "at least "}.get(rule, "")


def _shown(value: Value) -> str:
    if value is None:
        return "not measured"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{platform.system()} {platform.machine()}, {cores} cores{load}, Python {platform.python_version()}"

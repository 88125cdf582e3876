"""`evoscale ablate RUN`: the winner's diff taken back one edit at a time, each with its paired effect."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from evolution.ablation import EditEffect


def ablate(
    run: Annotated[Path, typer.Argument(help="A run's folder, such as runs/demo.")],
    seeds: Annotated[int, typer.Option(min=2, max=100, help="Paired tuning seeds at every size.")] = 6,
    size: Annotated[list[str] | None, typer.Option(help="A size of the ladder; may be repeated; default all.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure RUN's winner without each of its edits, on seeds that neither search nor confirmation used.

    Above zero, the edit helps. The same command goes on where it was stopped; runs are kept in RUN-ablation.
    """
    from evolution.ablation import ablate as run_ablation

    def listen(event: str, payload: Mapping[str, Any]) -> None:
        if not json_output and event == "edit":
            line = f"[{payload['number']}/{payload['total']}] without: {payload['edit'].summary[:90]}"
            print(line, file=sys.stderr, flush=True)

    effects = run_ablation(run, seeds=seeds, sizes=size, listener=listen)
    if json_output:
        print(json.dumps([_plain(effect) for effect in effects]))
        return
    if not effects:
        print("the winner's block does not differ from the reference's")
    for effect in effects:
        print(_line(effect))


def _plain(effect: EditEffect) -> dict[str, Any]:
    test = effect.test
    return {
        "operator": effect.edit.operator,
        "line": effect.edit.line,
        "removed": list(effect.edit.removed),
        "added": list(effect.edit.added),
        "failure": effect.failure,
        "differences": list(effect.differences),
        "mean": None if test is None else test.mean,
        "low": None if test is None else test.low,
        "high": None if test is None else test.high,
        "p_holm": effect.p_holm,
    }


def _line(effect: EditEffect) -> str:
    head = f"line {effect.edit.line:>3}  {effect.edit.summary[:60]:<60}"
    if effect.test is None:
        return f"{head}  cannot be taken back alone: {' '.join((effect.failure or '').split())[:120]}"
    test = effect.test
    return (
        f"{head}  worth {test.mean:+.4f} nats (95 % interval {test.low:+.4f} to {test.high:+.4f}; "
        f"{test.n} seeds, p = {effect.p_holm:.2g} after Holm)"
    )

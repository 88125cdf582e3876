"""`evoscale inspect RUN`: what the winner's trained heads read, beside the reference's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def inspect(
    run: Annotated[Path, typer.Argument(help="A run's folder, such as runs/demo.")],
    size: Annotated[str | None, typer.Option(help="A size of the ladder; default the smallest.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train RUN's reference and winner once more and read their influence maps: entropy, context, decay.

    Writes RUN/influence.svg, one row an arm, one panel a head. One trained pair: a description, no test.
    """
    from analysis.interpretability import map_figure
    from evolution.inspection import inspect_run

    def listen(event: str, payload: Any) -> None:
        if event == "inspecting" and not json_output:
            print(f"training the {payload['arm']} at {payload['size']}, seed {payload['seed']}", file=sys.stderr)

    found = inspect_run(run, size=size, listener=listen)
    path = run / "influence.svg"
    map_figure({one.arm: one.maps for one in found}).savefig(path, metadata={"Date": None})
    if json_output:
        heads = ("entropy", "effective_context", "mean_distance", "decay_rate", "half_life")
        rows = [
            {
                "arm": one.arm,
                "val_loss": one.val_loss,
                "heads": [{name: getattr(head, name) for name in heads} for head in one.heads],
            }
            for one in found
        ]
        print(json.dumps({"figure": str(path), "arms": rows}))
        return
    for one in found:
        print(f"{one.arm}: validation loss {one.val_loss:.4f}")
        for number, head in enumerate(one.heads):
            life = "no decay" if head.half_life is None else f"half-life {head.half_life:.1f}"
            print(
                f"  head {number}: effective context {head.effective_context:5.1f} positions, entropy "
                f"{head.entropy:.2f} nats, mean distance {head.mean_distance:.1f}, {life}"
            )
    print(f"figure: {path}")

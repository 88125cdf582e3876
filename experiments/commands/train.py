"""`evoscale train`: one run of one program, with a progress bar, checkpoints and a history."""

from __future__ import annotations

import typer


def train(context: typer.Context) -> None:
    """Train one model: --framework F --variant standard --max-steps N ...; --help lists every flag."""
    from training.train import main

    raise typer.Exit(main(context.args, prog="evoscale train"))

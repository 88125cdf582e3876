"""`evoscale validate RUN`: both arms on fresh seeds, at every size and a larger one, to a verdict."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from evolution.validating import Validation


def validate(
    run: Annotated[Path, typer.Argument(help="The folder of a finished evolution, such as runs/demo.")],
    seeds: Annotated[int, typer.Option(min=2, max=1000, help="Fresh seeds; 6 or more to be believed.")] = 10,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them.")] = 42,
    candidate: Annotated[
        str | None, typer.Option(help="Identity of the candidate; the run's best when not given.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; default one a core.")] = None,
    allow_unsandboxed: Annotated[
        bool, typer.Option("--allow-unsandboxed", help="Run candidates even where the kernel offers no isolation.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Validate the best candidate of RUN against the reference, both at their tuned settings.

    Full horizon, seeds 42-51, every size of the ladder and a larger one nobody has seen, on the sealed test split.
    The same command goes on with what is missing; every checkpoint and curve stays in RUN/validation.
    """
    from evolution.finished_run import read_finished_run
    from evolution.validating import SUMMARY
    from evolution.validating import validate as run_validation
    from experiments.runs_view import RunsView
    from training.validate_best import ValidationSeeds, validation_sizes

    found = read_finished_run(run, candidate=candidate, workers=workers, allow_unsandboxed=allow_unsandboxed)
    _check_seed(first_seed + seeds - 1)
    total = 2 * seeds * len(validation_sizes(found.request.ladder))
    with RunsView(total, quiet=json_output) as view:
        result = run_validation(found, ValidationSeeds(first=first_seed, count=seeds), view.listen)
    summary = result.directory / SUMMARY
    if json_output:
        print(
            json.dumps(
                {
                    "verdict": dict(result.verdict),
                    "runs": list(result.rows),
                    "summary": str(summary),
                    "report": str(result.report),
                }
            )
        )
        return
    _print_sizes(result)
    print(f"\n{str(result.verdict['decision']).upper()}  {result.verdict['sentence']}")
    print(f"runs, checkpoints and curves: {summary}\nreport: {result.report}")


def _check_seed(last: int) -> None:
    from evolution.config import ConfigError
    from training.run_spec import seed_for

    try:
        seed_for("confirmation", last)
    except ValueError as error:
        raise ConfigError(f"--first-seed: {error}") from None


def _print_sizes(result: Validation) -> None:
    arms = list(dict.fromkeys(row["candidate"] for row in result.rows))
    print(f"\n{'size':<8} {'reference':>10} {'candidate':>10} {'difference':>11}   FLOPs, CPU and memory of the two")
    for size in dict.fromkeys(row["size"] for row in result.rows):
        sums: list[dict[str, float]] = []
        for arm in arms:
            rows = [row for row in result.rows if row["size"] == size and row["candidate"] == arm]
            if any(row["val_loss"] is None for row in rows):
                sums = []
                break
            sums.append(
                {
                    name: statistics.fmean(row[name] for row in rows)
                    for name in ("val_loss", "flops", "cpu_seconds", "peak_memory_bytes")
                }
            )
        if not sums:
            print(f"{size:<8} a run did not complete")
            continue
        ours, theirs = sums[1], sums[0]
        ratios = ", ".join(
            f"{ours[name] / theirs[name]:.2f}x" for name in ("flops", "cpu_seconds", "peak_memory_bytes")
        )
        difference = ours["val_loss"] - theirs["val_loss"]
        print(f"{size:<8} {theirs['val_loss']:>10.4f} {ours['val_loss']:>10.4f} {difference:>+11.4f}   {ratios}")

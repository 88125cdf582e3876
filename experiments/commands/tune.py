"""`evoscale tune RUN`: hyperparameters of both arms of a finished evolution."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from evolution.tuning import TunedArm


def tune(
    run: Annotated[Path, typer.Argument(help="The folder of a finished evolution, such as runs/demo.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials an arm; 50 to 100 for a paper.")] = 16,
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="Tuning seeds a trial; with 2 or more, trials are pruned.")
    ] = 2,
    size: Annotated[str | None, typer.Option(help="Size to tune at; the ladder's smallest when not given.")] = None,
    candidate: Annotated[
        str | None, typer.Option(help="Identity of the candidate; the run's best when not given.")
    ] = None,
    learning_rate_factor: Annotated[
        tuple[float, float], typer.Option(help="Least and most, times the ladder's rate.")
    ] = (0.25, 4.0),
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; default one a core.")] = None,
    allow_unsandboxed: Annotated[
        bool, typer.Option("--allow-unsandboxed", help="Run candidates even where the kernel offers no isolation.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Search learning rate, warm-up, weight decay and batch size for the reference and the candidate of RUN.

    Both arms get the same space and the same number of trials; a trial is only ever compared with its own arm's.
    The same command again goes on; evoscale validate uses what was found.
    """
    from evolution.finished_run import read_finished_run
    from evolution.tuning import tune as run_tuning
    from experiments.runs_view import RunsView
    from training.hyperparameter_search import SearchSpace, TuningError

    try:
        space = SearchSpace(learning_rate_factor=learning_rate_factor)
    except ValueError:
        low, high = learning_rate_factor
        raise TuningError(
            f"--learning-rate-factor {low:g} {high:g}: give a least value above 0 and a larger most value"
        ) from None
    found = read_finished_run(run, candidate=candidate, workers=workers, allow_unsandboxed=allow_unsandboxed)
    with RunsView(2 * trials * seeds, quiet=json_output) as view:
        arms = run_tuning(found, size=size, trials=trials, seeds=seeds, space=space, listener=view.listen)
    if json_output:
        print(json.dumps({"arms": [_as_json(arm) for arm in arms]}))
        return
    for name, arm in zip(("reference", "candidate"), arms, strict=True):
        settings = arm.best.settings
        before = "not completed" if arm.untuned is None else f"{arm.untuned:.4f}"
        print(
            f"{name} {arm.candidate[:12]}: loss {before} at the ladder's settings, "
            f"{statistics.fmean(arm.best.losses):.4f} at rate x{settings.learning_rate_factor:.3f}, "
            f"warm-up {settings.warmup_fraction:.3f}, weight decay {settings.weight_decay:g}, "
            f"batch x{settings.batch_factor:g} (trial {arm.best.number} of {len(arm.trials)})"
        )
    print(f"next: evoscale validate {run}")


def _as_json(arm: TunedArm) -> dict[str, Any]:
    def trial(value: Any) -> dict[str, Any]:
        return dataclasses.asdict(value) | {"settings": value.settings.model_dump(mode="json")}

    return {
        "candidate": arm.candidate,
        "untuned": arm.untuned,
        "best": trial(arm.best),
        "trials": [trial(each) for each in arm.trials],
    }

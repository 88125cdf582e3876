"""`evoscale calibrate FRAMEWORK`: known controls through the pipeline, and whether it concludes what it must."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from analysis.error_rates import ErrorRates
    from evolution.calibrating import Calibration, ControlResult


def calibrate(
    framework: Annotated[str, typer.Argument(help="The framework whose controls are run.")],
    demo: Annotated[bool, typer.Option("--demo", help="Minutes on two cores: the demo ladder with 6 seeds.")] = False,
    config: Annotated[Path | None, typer.Option(help="YAML file; options below win over it.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, a.b=c; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the whole calibration.")] = None,
    name: Annotated[str | None, typer.Option(help="Folder under --runs.")] = None,
    ladder: Annotated[str | None, typer.Option(help="Sizes: demo, laptop or paper.")] = None,
    all_controls: Annotated[
        bool, typer.Option("--all", help="Also the other controls whose conclusion is known.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Worker processes; default one a core.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Send FRAMEWORK's controls through guards and confirmation.

    Cheats must be rejected before training, the null and the sprinter (leads early, loses late)
    must not be promoted, positive controls must be. Exit status 0 only when all of it holds.
    """
    from evolution.calibrating import calibrate as run_calibration
    from evolution.config import ConfigError, load_config
    from experiments.live import LiveView

    if demo and ladder not in (None, "demo"):
        raise ConfigError(f"--demo and --ladder {ladder} exclude each other; give one of them")
    overrides: dict[str, Any] = {
        "framework": framework,
        "seed": seed,
        "ladder": "demo" if demo else ladder,
        "workers": workers,
        "name": name or f"calibrate-{framework}" + ("" if seed is None else f"-seed{seed}"),
        "iterations": 0,
    }
    resolved = load_config(config, set_, overrides)
    with LiveView(quiet=json_output) as view:
        result = run_calibration(resolved, runs, thorough=all_controls, listener=_with_controls(view, json_output))
    if json_output:
        print(json.dumps(_as_json(result)))
    else:
        _print_table(result)
    raise typer.Exit(1 if result.misranked else 0)


def _with_controls(view: Any, quiet: bool) -> Any:
    def listen(event: str, payload: Mapping[str, Any]) -> None:
        view.listen(event, payload)
        if quiet:
            return
        if event == "control":
            result: ControlResult = payload["result"]
            mark = "right" if result.right else "WRONG"
            print(f"  {mark}  {result.kind:<9} {result.name:<32} {result.concluded}", flush=True)
        elif event == "sprint":
            sprint = payload["sprint"]
            print(
                f"  {sprint.control} at {sprint.steps} steps ({sprint.size}): {sprint.mean_difference:+.4f} nats "
                f"against softmax, one-sided p = {sprint.p_one_sided:.4f} over {sprint.n_pairs} search seeds",
                flush=True,
            )

    return listen


def _print_table(result: Calibration) -> None:
    if result.misranked:
        names = ", ".join(f"{r.name} ({r.concluded} instead of {r.expected})" for r in result.misranked)
        print(f"\nMISRANKED: {names}. Verdicts of this set-up are withheld until this is understood.")
    else:
        print(f"\nAll {len(result.results)} controls of {result.framework} ended as they must.")
    width = max((len(r.name) for r in result.results), default=10)
    for kind in ("cheat", "null", "honest", "positive"):
        for row in (r for r in result.results if r.kind == kind):
            reason = " ".join(row.reason.split())
            print(f"{kind:<9} {row.name:<{width}}  {row.concluded:<13} {reason[:160]}")
    if result.rates is not None:
        _print_rates(result.rates)
    if result.sprint is not None:
        sprint = result.sprint
        place = "ahead of" if sprint.mean_difference < 0 else "behind"
        print(
            f"sprinter  {sprint.control} is {abs(sprint.mean_difference):.4f} nats {place} softmax at "
            f"{sprint.steps} steps (one-sided p = {sprint.p_one_sided:.4f}, {sprint.n_pairs} pairs); "
            "its verdict at the full horizon stands above."
        )


def _print_rates(rates: ErrorRates) -> None:
    if rates.nulls is not None:
        nulls = rates.nulls
        ours, naive = nulls.two_stage, nulls.naive_best
        print(
            f"errors    {nulls.n_searches} simulated searches of {nulls.n_candidates} nulls, noise of these runs: "
            f"{100 * ours.rate:.1f} % end in a promotion (95 % Wilson interval {100 * ours.low:.1f} to "
            f"{100 * ours.high:.1f}); taking the best would promote in {100 * naive.rate:.0f} %"
        )
    shown = ", ".join(f"{power:.2f} at d_z {effect:g}" for effect, power in rates.power.items())
    print(f"power     of {rates.n_seeds} seeds, uncorrected: {shown}; power .8 needs d_z {rates.least_d_z:.2f}")
    taus = ", ".join(f"{proxy.size} step {proxy.step} {proxy.tau:+.2f}" for proxy in rates.proxies)
    print(f"ranking   Kendall tau with the mean final loss over {rates.n_arms} arms: {taus}")


def _as_json(result: Calibration) -> dict[str, Any]:
    return {
        "framework": result.framework,
        "misranked": [r.name for r in result.misranked],
        "results": [dataclasses.asdict(r) | {"right": r.right} for r in result.results],
        "sprint": dataclasses.asdict(result.sprint) if result.sprint else None,
        "rates": dataclasses.asdict(result.rates) if result.rates else None,
    }

"""`evoscale probe FRAMEWORK`: what a mechanism can do, on six synthetic tasks, beside the reference."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from evolution.sandbox import Sandbox


def probe(
    framework: Annotated[str, typer.Argument(help="coefficient_dynamics, test_time_regression or matrix_mixer.")],
    program: Annotated[
        str | None, typer.Option(help="A program file, or the name of a control; only the reference when not given.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this probe; may be repeated.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps a probe.")] = 400,
    seed: Annotated[int, typer.Option(min=0, max=9_999, help="Initial weights, batches and facts.")] = 1,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; default one a core.")] = None,
    allow_unsandboxed: Annotated[
        bool, typer.Option("--allow-unsandboxed", help="Run the program even where the kernel offers no isolation.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train small models on in-context, fuzzy and noisy recall, selective copy, compression and memorisation.

    Exit status 0 only when every probe was measured.
    """
    from data.probes import probe as probe_named
    from data.probes import probes
    from evolution.sandbox import Sandbox
    from evolution.session import start_program
    from frameworks.registry import framework as find_framework
    from training.executors.local import default_workers
    from training.probing import ProbeSettings

    found = find_framework(framework)
    names = [probe_named(name).name for name in task] if task else list(probes())
    sources: dict[str, str | None] = {"reference": None}
    if program is not None:
        sources["program"] = start_program(program, found).source
    settings = ProbeSettings(steps=steps, seed=seed).model_dump(mode="json")
    work = [(name, arm) for name in names for arm in sources]
    with Sandbox(allow_unsandboxed=allow_unsandboxed) as sandbox:
        with ThreadPoolExecutor(workers or default_workers("cpu")) as pool:
            results = dict(
                zip(
                    work,
                    pool.map(lambda item: _measured(sandbox, item[0], framework, sources[item[1]], settings), work),
                    strict=True,
                )
            )
    if json_output:
        print(json.dumps({"results": [{"probe": name, "arm": arm} | results[name, arm] for name, arm in work]}))
    else:
        _print_table(names, list(sources), results)
    raise typer.Exit(1 if any("error" in result for result in results.values()) else 0)


def _measured(
    sandbox: Sandbox, name: str, framework: str, source: str | None, settings: dict[str, Any]
) -> dict[str, Any]:
    from evolution.measurement import GIBIBYTE, outcome_of
    from evolution.sandbox import Limits, Returned
    from training.outcome import explain

    result = sandbox.call(
        "training.probing:measure",
        {"probe": name, "framework": framework, "source": source, "settings": settings},
        limits=Limits(seconds=3_600, memory_bytes=4 * GIBIBYTE),
    )
    if isinstance(result, Returned) and isinstance(result.value, dict):
        return dict(result.value)
    return {"error": explain(outcome_of(result))}


def _print_table(names: list[str], arms: list[str], results: dict[tuple[str, str], dict[str, Any]]) -> None:
    from data.probes import probes

    print(f"{'accuracy':<18} {'chance':>7} " + " ".join(f"{arm:>10}" for arm in arms) + "   asks for")
    for name in names:
        cells = []
        for arm in arms:
            accuracy = results[name, arm].get("accuracy")
            cells.append(f"{'failed' if accuracy is None else f'{accuracy:.3f}':>10}")
        entry = probes()[name]
        print(f"{name:<18} {entry.chance:>7.3f} {' '.join(cells)}   {entry.skill}")
    for (name, arm), result in results.items():
        if "error" in result:
            print(f"{name}, {arm}: {' '.join(str(result['error']).split())[:300]}")

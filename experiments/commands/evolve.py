"""`evoscale evolve FRAMEWORK`: evolve a program and end in a verdict."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def evolve(
    context: typer.Context,
    framework: Annotated[str, typer.Argument(help="What evolves: coefficient_dynamics, test_time_regression, ...")],
    config: Annotated[Path | None, typer.Option(help="YAML file; options below win over it.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, a.b=c; may be repeated.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Candidates to propose.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the whole run.")] = None,
    name: Annotated[str | None, typer.Option(help="Folder under --runs; the same name goes on with a run.")] = None,
    ladder: Annotated[str | None, typer.Option(help="Sizes: demo, laptop or paper.")] = None,
    corpus: Annotated[
        str | None, typer.Option(help="stdlib, stories, tinystories, or a .txt, .jsonl or .parquet file.")
    ] = None,
    api_base: Annotated[
        str | None,
        typer.Option(
            envvar=["OPENAI_BASE_URL", "OPENAI_API_BASE"],
            help="An OpenAI-compatible endpoint, such as http://host/v1; the key is read from OPENAI_API_KEY.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(envvar="OPENAI_MODEL", help="Model at that endpoint.")] = None,
    llm: Annotated[
        list[str] | None,
        typer.Option(help="embedded, a .gguf file, endpoint or catalogue; repeated, a bandit chooses among them."),
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="Add control arms at the search's training budget.")
    ] = False,
    replay: Annotated[
        Path | None, typer.Option(help="Repeat this run's folder from its ledger, asking nobody; needs another --name.")
    ] = None,
    start_program: Annotated[
        str | None, typer.Option(help="A program to start from: a file, or the name of a control.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; default one a core.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    allow_unsandboxed: Annotated[
        bool, typer.Option("--allow-unsandboxed", help="Run candidates even where the kernel offers no isolation.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Evolve FRAMEWORK: propose, guard, measure, judge; ends in a verdict and runs/NAME/report.html.

    Without an endpoint the embedded operator catalogue proposes (no LLM, no network).
    The same command again goes on with an interrupted run, or shows a finished one.
    """
    from evolution.config import load_config
    from evolution.session import evolve as run_evolution
    from experiments.live import LiveView

    overrides: dict[str, Any] = {
        "framework": framework,
        "iterations": iterations,
        "seed": seed,
        "name": name,
        "ladder": ladder,
        "corpus.source": corpus,
        "start_program": start_program,
        "workers": workers,
        "limits.allow_unsandboxed": allow_unsandboxed or None,
        "controls": dict.fromkeys(("best_of_n", "random_operators", "tuning"), True) if controls else None,
        **({"proposers": []} if _given(context) else {}),
        **(llm_overrides(llm, api_base, model, _given(context)) if llm else endpoint_overrides(api_base, model)),
    }
    if replay is None:
        resolved = load_config(config, set_, overrides)
    else:
        resolved = _replayed(context, replay, framework, name, workers)
    with LiveView(quiet=json_output) as view:
        result = run_evolution(resolved, runs, arguments=sys.argv[1:], listener=view.listen, replay=replay)
        view.finish(result)
    if json_output:
        print(
            json.dumps(
                {
                    "sentence": result.sentence,
                    "n_candidates": result.n_candidates,
                    "verdicts": [dict(verdict) for verdict in result.verdicts],
                    "report": str(view.report) if view.report else None,
                    **({"differences": view.differences} if replay is not None else {}),
                }
            )
        )
    if view.differences:
        raise typer.Exit(1)


def _replayed(context: typer.Context, replay: Path, framework: str, name: str | None, workers: int | None) -> Any:
    """The configuration of a replay; every other setting is the replayed run's.

    Raises:
        ConfigError: a setting was given that would make it another run.
    """
    from evolution.config import ConfigError
    from evolution.replay import replay_config

    allowed = {"framework", "name", "workers", "runs", "replay", "json_output", "allow_unsandboxed"}
    others = [
        parameter
        for parameter in context.params
        if parameter not in allowed
        and (source := context.get_parameter_source(parameter)) is not None
        and source.name == "COMMANDLINE"
    ]
    if others:
        shown = ", ".join(f"--{other.strip('_').replace('_', '-')}" for other in others)
        raise ConfigError(f"--replay takes every setting from its run; leave out {shown}")
    return replay_config(replay, framework=framework, name=name, workers=workers)


def _given(context: typer.Context) -> bool:
    """Whether an endpoint was named on the command line and not only by the environment."""
    sources = [context.get_parameter_source(name) for name in ("api_base", "model")]
    return any(source is not None and source.name == "COMMANDLINE" for source in sources)


def llm_overrides(llm: list[str], api_base: str | None, model: str | None, given: bool) -> dict[str, Any]:
    """Settings of the proposers named by `--llm`.

    Raises:
        ConfigError: an endpoint was named by flags, and `--llm` does not name it.
    """
    from evolution.config import ConfigError

    if given and "endpoint" not in llm:
        raise ConfigError(
            f"--model or --api-base names an endpoint, but --llm names only {', '.join(llm)}; add --llm endpoint"
        )
    sections: list[dict[str, Any]] = []
    for name in llm:
        if name == "catalogue":
            sections.append({"kind": "catalogue"})
        elif name == "endpoint":
            sections.append({"kind": "endpoint", "api_base": api_base, "model": model})
        else:
            sections.append({"kind": "local", "model": name})
    if len(sections) > 1:
        return {"proposers": sections}
    return {"proposers": [], **{f"proposer.{key}": value for key, value in sections[0].items()}}


def endpoint_overrides(api_base: str | None, model: str | None) -> dict[str, Any]:
    """Settings of an endpoint given by flag or environment; none of the two leaves the file's."""
    if api_base is None and model is None:
        return {}
    return {"proposer.kind": "endpoint", "proposer.api_base": api_base, "proposer.model": model}

"""`evoscale finetune [CONFIG]`: evolution strategies on a translation model."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from training.es_config import FinetuneConfig


def finetune(
    config: Annotated[Path | None, typer.Argument(help="YAML file; without one, the defaults.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, a.b=c; may be repeated.")] = None,
    name: Annotated[str | None, typer.Option(help="Folder under --runs; the same name goes on with a run.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    analyse: Annotated[
        bool, typer.Option("--analyse", help="Only count the model's parameters: evolved, frozen, size of the noise.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fine-tune a translation model without gradients; ends in a test report and runs/NAME/model.

    The same command again goes on with an interrupted run, or shows a finished one.
    """
    chosen = _config(config, set_, name)
    if analyse:
        _analyse(chosen, json_output)
        return
    result = _run(chosen, runs / chosen.name, quiet=json_output)
    if json_output:
        print(json.dumps(result))
    else:
        _show(result, runs / chosen.name)


def _config(path: Path | None, settings: list[str] | None, name: str | None) -> FinetuneConfig:
    from pydantic import ValidationError

    from evolution.config import ConfigError, explain_validation, read_tree
    from training.es_config import FinetuneConfig

    tree, source = read_tree(path, settings)
    if name is not None:
        tree["name"] = name
    try:
        found = FinetuneConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explain_validation(error, FinetuneConfig, source)) from None
    if found.name in ("", ".", "..") or "/" in found.name:
        raise ConfigError(f"name {found.name!r}: must be the name of a folder under --runs, without a slash")
    return found


def _run(config: FinetuneConfig, directory: Path, *, quiet: bool) -> dict[str, Any]:
    from data.translation import load_translation
    from evolution.manifest import describe_environment, write_json
    from experiments.finetune_view import FinetuneView
    from frameworks.noisers.noiser import noiser
    from models.fsmt.loader import load_fsmt
    from training.es_finetuning import Finetuning
    from training.start_model import start_model

    task = config.task
    found = noiser(config.evolution.noiser)
    translator = None if config.model.name == "embedded" else load_fsmt(config.model.name)
    if translator is not None:
        translator.check_langs(task.src_lang, task.tgt_lang)
    data = load_translation(task.dataset, task.src_lang, task.tgt_lang, files=task.files, max_train=task.max_train)
    with FinetuneView(quiet=quiet, n_epochs=config.training.num_epochs) as view:
        if translator is None:
            translator = start_model(config.model.start, data, progress=view.start_progress)
        finetuning = Finetuning(config, translator, data, found, directory, view.listen)
        manifest = {
            "name": config.name,
            "kind": "finetune",
            "config": config.model_dump(mode="json"),
            "data": {"name": data.name, "hash": data.hash()},
            "model": translator.name,
            "command": " ".join(["evoscale", *sys.argv[1:]]),
            "environment": describe_environment(),
        }
        write_json(directory / "manifest.json", manifest)
        return finetuning.run()


def _analyse(config: FinetuneConfig, json_output: bool) -> None:
    from models.fsmt.loader import load_fsmt
    from models.fsmt.parameters import analyse, meta_model

    embedded = config.model.name == "embedded"
    model = meta_model(config.model.start.shape) if embedded else load_fsmt(config.model.name).model
    found = analyse(
        model,
        config.model.evolve_patterns,
        rank=config.evolution.rank,
        members=config.evolution.parallel_generations_per_gpu,
    )
    if json_output:
        print(json.dumps(found))
        return
    print(f"{found['total']:>14,}  parameters")
    for part, count in found["parts"].items():
        print(f"{count:>14,}  {part}")
    print(f"\nnoise of {found['members']} members in antithetic pairs, fp32; rank {found['rank']} and full rank")
    for mode, row in found["modes"].items():
        print(
            f"{mode:<9} {row['matrices']:>4} matrices, {row['evolved']:>13,} evolve "
            f"({row['evolved'] / found['total']:.1%}), "
            f"{row['frozen']:>13,} frozen; noise {row['low_rank_noise_bytes'] / 1e6:,.1f} MB, "
            f"full rank {row['full_rank_noise_bytes'] / 1e6:,.1f} MB"
        )


def _show(result: Mapping[str, Any], directory: Path) -> None:
    print(
        f"\n{result['epochs']} epochs, {result['cpu_seconds']:.0f} CPU s; "
        f"best on validation: epoch {result['best_epoch']}"
    )
    if result["permuted_fitness"]:
        print("a control: fitness was permuted within groups, so nothing could be learnt")
    for key, title in (("test", "test"), ("test_no_repeat_2", "test, no bigram twice")):
        row = result[key]
        start, tuned, p = row["start"], row["tuned"], row["p"]
        print(
            f"{title:<22}  chrF {start['chrf']:.2f} -> {tuned['chrf']:.2f} (p = {p['chrf']:.4f})   "
            f"BLEU {start['bleu']:.2f} -> {tuned['bleu']:.2f} (p = {p['bleu']:.4f})   "
            f"length ratio {start['length_ratio']:.2f} -> {tuned['length_ratio']:.2f}"
        )
    print(f"model: {directory / 'model'}")

"""`evoscale finetune` as a person meets it: shipped configurations, the analysis, and mistakes in one sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytest.importorskip("transformers")

from experiments import cli
from training.es_config import FinetuneConfig

STUDY = Path(__file__).parents[2] / "experiments" / "05_fsmt_evolution_strategies"

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run the command in this process and an empty folder: (exit status, output, errors)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVOSCALE_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evoscale", "finetune", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        code = ended.value.code
        return int(code) if isinstance(code, int) else 0, printed.out, printed.err

    return run


@pytest.mark.parametrize("path", sorted(STUDY.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_configuration_is_valid_and_says_what_the_others_must(path: Path) -> None:
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert FinetuneConfig.model_validate(tree).name == tree["name"]
    assert {"noiser", "sigma", "lr_scale", "generations_per_prompt", "parallel_generations_per_gpu"} <= set(
        tree["evolution"]
    )


def test_analysis_counts_without_training_anything(command: Command, tmp_path: Path) -> None:
    status, out, _ = command("--analyse", "--json", "--set", "model.evolve_patterns=['*.q_proj.weight']")
    assert status == 0
    found = json.loads(out)
    assert set(found["modes"]) == {"lora", "full", "patterns"}
    assert found["modes"]["patterns"]["evolved"] < found["modes"]["lora"]["evolved"] < found["total"]
    status, out, _ = command("--analyse", str(STUDY / "small.yaml"))
    assert status == 0
    assert "encoder attention" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("evolution.sgima=0.1", ["unknown key 'evolution.sgima'", "did you mean 'sigma'"]),
        ("evolution.sigma=0", ["evolution.sigma", "greater than 0", "got 0"]),
        ("evolution.generations_per_prompt=7", ["generations_per_prompt is 7", "must be even", "nearest: 8"]),
        ("evolution.parallel_generations_per_gpu=250", ["is 250", "does not divide", "nearest: 248"]),
        ("evolution.noiser=egroll", ["unknown noiser 'egroll'", "did you mean 'eggroll'"]),
        ("task.tgt_lang=fr", ["the embedded set is en-de; en-fr was asked for"]),
        ("task.dataset=wmt41", ["unknown translation set 'wmt41'", "did you mean 'wmt1"]),
        ("model.name=./absent", ["model './absent': no such folder"]),
        ("name=a/b", ["name 'a/b'", "without a slash"]),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(
    command: Command, tmp_path: Path, setting: str, parts: list[str]
) -> None:
    status, out, err = command("--set", setting)
    assert status == 2
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1
    for part in parts:
        assert part in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there(command: Command) -> None:
    status, _, err = command("absent.yaml")
    assert status == 2
    assert "absent.yaml: no such file" in err


@pytest.mark.slow
def test_the_quick_bench_is_exact() -> None:
    from experiments.benches.registry import Options, bench

    rows = {row.name: row for row in bench("es").run(Options(quick=True))}
    assert rows["members with the tokens of written-out weights"].holds
    assert rows["largest difference of a logit"].holds
    assert rows["noise of 256 members, 8 + 2 layers at 1024"].holds
    assert all(row.value is not None and row.value > 0 for row in rows.values())

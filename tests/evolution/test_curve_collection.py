"""Collecting learning curves: candidates, evaluations, and a tiny collection that resumes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from analysis.learning_curves import read_curves
from evolution.config import ConfigError
from evolution.curve_collection import curve_candidates, evaluated_every
from experiments.cli import app
from frameworks.registry import frameworks
from training.ladder import ladder

TINY = [
    "curves", "coefficient_dynamics", "--ladder", "debug", "--eval-every", "4", "--seeds", "2", "--set",
    "corpus.source=stories", "--set", "corpus.max_bytes=400000", "--json",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", list(frameworks()))
def test_candidates_are_many_distinct_and_hold_no_cheat(name: str) -> None:
    programs = curve_candidates(name)
    assert len(programs) >= 20
    assert len({program.identity for program in programs.values()}) == len(programs)
    assert next(iter(programs)) == "reference"
    assert not {"batch_neighbours", "next_token_whisper", "kept_centre"} & set(programs)
    assert {key: p.identity for key, p in curve_candidates(name).items()} == {
        key: p.identity for key, p in programs.items()
    }


def test_evaluations_change_and_what_is_trained_does_not() -> None:
    often = evaluated_every(ladder("demo"), 50)
    for before, after in zip(ladder("demo").all_sizes, often.all_sizes, strict=True):
        assert after.eval_every == 50
        assert after.model_copy(update={"eval_every": before.eval_every}) == before
    with pytest.raises(ConfigError, match="does not divide"):
        evaluated_every(ladder("demo"), 300)


def test_mistakes_are_found_before_anything_is_written(tmp_path: Path) -> None:
    for arguments, message in (
        (["--out", "x.csv"], "is a .csv.gz file"),
        (["--recorded"], "holds no recorded runs"),
    ):
        done = CliRunner().invoke(app, [*TINY, "--runs", str(tmp_path / "runs"), *arguments])
        assert message in str(done.exception)
        assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_candidate_to_skip_must_exist(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*TINY, "--runs", str(tmp_path / "runs"), "--skip", "mamba3"])
    assert "did you mean 'mamba2'" in str(done.exception)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_tiny_collection_is_the_same_from_its_record(tmp_path: Path) -> None:
    runs = ["--runs", str(tmp_path / "runs"), "--limit", "2"]
    first, second = tmp_path / "a.csv.gz", tmp_path / "b.csv.gz"
    done = CliRunner().invoke(app, [*TINY, *runs, "--out", str(first)])
    assert done.exit_code == 0, done.output
    again = CliRunner().invoke(app, [*TINY, *runs, "--recorded", "--out", str(second)])
    assert again.exit_code == 0, again.output
    assert first.read_bytes() == second.read_bytes()
    table = read_curves(first)
    assert table.candidates[0] == "reference"
    assert {size: curves.steps.tolist() for size, curves in table.sizes.items()} == {
        "d16": [4, 8, 12],
        "d24": [4, 8, 12],
    }

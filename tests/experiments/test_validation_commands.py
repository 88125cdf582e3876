"""`evoscale tune`, `validate` and `probe` as a person meets them: mistakes in one sentence with status 2."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from experiments import cli


def call(*arguments: str) -> int:
    """Exit status of the command line in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["evoscale", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tune", "nowhere"], "nowhere is not a run"),
        (["validate", "nowhere"], "nowhere is not a run"),
        (["tune", "nowhere", "--learning-rate-factor", "2", "1"], "--learning-rate-factor 2 1: give a least value"),
        (["probe", "coefficient_dinamics"], "coefficient_dynamics"),
        (["probe", "matrix_mixer", "--task", "fuzy_recall"], "did you mean 'fuzzy_recall'"),
        (["probe", "matrix_mixer", "--program", "linear_atention"], "is no file"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_probe_beside_the_reference(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ["--task", "selective_copy", "--steps", "5", "--workers", "1", "--json"]
    assert call("probe", "coefficient_dynamics", "--program", "linear_attention", *options) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [row["arm"] for row in results] == ["reference", "program"]
    assert all(0 <= row["accuracy"] <= 1 and row["steps"] == 5 for row in results)

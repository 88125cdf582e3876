"""Controls through the whole pipeline at toy size: cheats are stopped, the rest is judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from evolution.calibrating import calibrate
from evolution.config import load_config
from evolution.ledger import Ledger
from frameworks.attention.controls.registry import controls


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["coefficient_dynamics", "test_time_regression", "matrix_mixer"])
def test_every_cheat_is_rejected_before_training_and_every_other_control_is_judged(
    framework: str, tmp_path: Path
) -> None:
    config = load_config(
        None,
        None,
        {
            "framework": framework,
            "name": "controls",
            "ladder": "debug",
            "iterations": 0,
            "corpus.source": "stories",
            "corpus.max_bytes": 400_000,
            "confirmation.seeds": 2,
        },
    )
    result = calibrate(config, tmp_path)
    cheats = [row for row in result.results if row.kind == "cheat"]
    judged = {row.name: row.concluded for row in result.results if row.kind != "cheat"}
    assert len(cheats) == len(controls(framework, "cheat")) > 0
    assert all(row.concluded == "rejected" for row in cheats), [row.name for row in cheats if not row.right]
    assert set(judged.values()) <= {"promoted", "not promoted", "undecided"}
    assert any(control.name in judged for control in controls(framework, "null"))
    with Ledger.open(tmp_path / "controls" / "ledger.sqlite", read_only=True) as ledger:
        trained = {run.spec["candidate"] for run in ledger.runs()}
        rejected = {event.payload["candidate"] for event in ledger.events("guard") if event.payload["reason"]}
        assert not trained & rejected

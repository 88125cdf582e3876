"""Whole evolutions at toy size: real OpenEvolve parts, real endpoint on loopback, real workers, real training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from evolution.config import ConfigError, EvolveConfig, load_config
from evolution.ledger import Ledger
from evolution.session import LEDGER_NAME, evolve

ROOT = Path(__file__).parents[2]
TINY: dict[str, Any] = {
    "framework": "coefficient_dynamics",
    "ladder": "debug",
    "iterations": 4,
    "in_flight": 2,
    "workers": 2,
    "corpus.source": "stories",
    "corpus.max_bytes": 400_000,
    "confirmation.seeds": 2,
    "confirmation.shortlist": 1,
}


def tiny(**changes: Any) -> EvolveConfig:
    return load_config(None, None, TINY | {key.replace("__", "."): value for key, value in changes.items()})


def losses(directory: Path) -> dict[str, float | None]:
    """Run key to validation loss."""
    with Ledger.open(directory / LEDGER_NAME, read_only=True) as ledger:
        return {run.key: run.outcome.get("val_loss") for run in ledger.runs()}


def verdict_sentences(directory: Path) -> list[str]:
    with Ledger.open(directory / LEDGER_NAME, read_only=True) as ledger:
        return [event.payload["sentence"] for event in ledger.events("verdict")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished toy run."""
    runs = tmp_path_factory.mktemp("runs")
    evolve(tiny(name="first"), runs)
    return runs / "first"


def test_a_run_ends_in_a_report_a_manifest_and_a_sound_ledger(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "operator catalogue" in page
    assert "no LLM" in page
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["config"]["seed"] == 1
    assert len(manifest["corpus"]["hash"]) == 64
    with Ledger.open(finished / LEDGER_NAME, read_only=True) as ledger:
        assert ledger.integrity() == []
        statuses = [event.payload["status"] for event in ledger.proposals()]
        assert statuses.count("accepted") == 4
        assert len(ledger.candidates()) == 5
        assert all(event.payload["reply"] for event in ledger.proposals())
        plan = ledger.events("plan")[0]
        opened = ledger.events("seal_opened")[0]
        confirmations = ledger.runs(purpose="confirmation")
        assert plan.seq < opened.seq < min(run.seq for run in confirmations)
        assert {run.spec["eval_split"] for run in confirmations} == {"confirmation_test"}


def test_the_same_seed_reaches_the_same_end_with_any_number_of_workers(finished: Path, tmp_path: Path) -> None:
    evolve(tiny(name="again", workers=1), tmp_path)
    assert losses(tmp_path / "again") == losses(finished)
    assert verdict_sentences(tmp_path / "again") == verdict_sentences(finished)


def test_a_finished_run_is_shown_without_measuring(finished: Path) -> None:
    seen: list[str] = []
    before = losses(finished)
    result = evolve(tiny(name="first"), finished.parent, listener=lambda event, payload: seen.append(event))
    assert seen == ["finished_before"]
    assert losses(finished) == before
    assert [verdict["sentence"] for verdict in result.verdicts] == verdict_sentences(finished)


def test_other_settings_under_the_same_name_are_refused(finished: Path) -> None:
    with pytest.raises(ConfigError, match=r"started with other settings \(seed was 1, now 2\)"):
        evolve(tiny(name="first", seed=2), finished.parent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"framework": "coeficient_dynamics"}, "did you mean 'coefficient_dynamics'"),
        ({"ladder": "labtop"}, "did you mean 'laptop'"),
        ({"stages": [{"size": "d61"}]}, r"stages\[0\].size: ladder 'debug' has no size 'd61'.*Known: d16, d24"),
        ({"confirmation.sizes": ["d99"]}, r"confirmation.sizes\[0\]"),
        ({"corpus.source": "/nowhere/text.txt"}, "/nowhere/text.txt"),
        ({"name": "../outside"}, "cannot name a folder"),
        ({"start_program": "/nowhere/program.py"}, "start_program"),
        (
            {"proposer.kind": "endpoint", "proposer.model": "m", "proposer.api_base": "http://127.0.0.1:9/v1"},
            "127.0.0.1:9",
        ),
    ],
)
def test_bad_requests_leave_nothing_behind(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evolve(load_config(None, None, TINY | changes), tmp_path)
    assert list(tmp_path.iterdir()) == []


def _start(directory: Path) -> subprocess.Popen[bytes]:
    settings = [part for key, value in TINY.items() if key != "framework" for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "experiments.cli", "evolve", "coefficient_dynamics", "--name", "killed"]
    return subprocess.Popen(
        [*command, "--runs", str(directory), *settings],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def _kill_and_finish(directory: Path, reference: Path, delays: list[float]) -> None:
    for delay in delays:
        process = _start(directory)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()  # type: ignore[union-attr]
    process = _start(directory)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    assert losses(directory / "killed") == losses(reference)
    assert verdict_sentences(directory / "killed") == verdict_sentences(reference)
    with Ledger.open(directory / "killed" / LEDGER_NAME, read_only=True) as ledger:
        assert ledger.integrity() == []


@pytest.mark.slow
def test_kill_at_several_moments_then_finish(finished: Path, tmp_path: Path) -> None:
    _kill_and_finish(tmp_path, finished, [3.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])

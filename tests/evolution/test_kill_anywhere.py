"""`kill -9` of workers and of the supervisor at random moments: nothing committed is lost or measured twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from evolution.ledger import Ledger
from evolution.sandbox import sandbox_ability
from tests.evolution.toy_measurement import N_RUNS, expected_loss

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
pytestmark = pytest.mark.skipif(not sandbox_ability().namespaces, reason=sandbox_ability().reason)


def start(folder: Path) -> subprocess.Popen[str]:
    """A supervisor that is ready to measure."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "toy_measurement.py"), str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill_a_worker(supervisor: subprocess.Popen[str], rng: random.Random) -> int:
    """Kill any process below the supervisor: a worker, its keeper or a warm parent. How many were killed."""
    below = psutil.Process(supervisor.pid).children(recursive=True)
    if not below:
        return 0
    try:
        rng.choice(below).kill()
    except psutil.NoSuchProcess:
        return 0
    return 1


def kill_supervisor(supervisor: subprocess.Popen[str]) -> list[str]:
    """Kill it and wait until everything below it is gone; the keys it said it had committed."""
    below = psutil.Process(supervisor.pid).children(recursive=True)
    supervisor.send_signal(signal.SIGKILL)
    assert supervisor.stdout is not None
    said = supervisor.stdout.read().split("\n")[:-1]
    supervisor.stdout.close()
    supervisor.wait()
    _, alive = psutil.wait_procs(below, timeout=20)
    assert not alive
    return [line for line in said if line != "done"]


def committed(folder: Path) -> dict[str, float | None]:
    if not (folder / "ledger.sqlite").exists():
        return {}
    with Ledger.open(folder / "ledger.sqlite", read_only=True) as ledger:
        assert ledger.integrity() == []
        runs = ledger.runs()
        keys = [run.key for run in runs]
        assert len(set(keys)) == len(keys)
        for run in runs:
            assert run.outcome["status"] == "completed", run.outcome
            assert run.outcome["val_loss"] == expected_loss(run.spec["candidate"], run.spec["seed"])
        return {run.key: run.outcome["val_loss"] for run in runs}


def kill_and_resume(folder: Path, lives: int, seed: int) -> int:
    """Supervisors that each lose a worker and then their own life, and one that may finish; how many kills."""
    rng, kills = random.Random(seed), 0
    (folder / "corpus").mkdir()
    for _ in range(lives):
        before = committed(folder)
        supervisor = start(folder)
        time.sleep(rng.uniform(0.0, 0.3))
        kills += kill_a_worker(supervisor, rng)
        time.sleep(rng.uniform(0.0, 0.3))
        said = kill_supervisor(supervisor)
        kills += 1
        after = committed(folder)
        assert before.items() <= after.items()
        assert set(said) <= set(after), "what was said to be committed is there"
        assert not set(said) & set(before), "what was committed is not measured again"
    with start(folder) as supervisor:
        assert supervisor.wait(timeout=300) == 0
    assert len(committed(folder)) == N_RUNS
    return kills


def test_kill_at_a_few_moments(tmp_path: Path) -> None:
    assert kill_and_resume(tmp_path, lives=2, seed=1) >= 2


@pytest.mark.slow
def test_kill_at_fifty_moments(tmp_path: Path) -> None:
    assert kill_and_resume(tmp_path, lives=26, seed=2) >= 50

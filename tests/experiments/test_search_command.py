"""`evoscale search` as a person meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benches.registry import Options
from experiments.benches.registry import bench as bench_named

ROOT = Path(__file__).parents[2]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "experiments.cli", "search", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_validate_prints_costs(tmp_path: Path) -> None:
    done = run("validate", "llama_like", "mamba2_like", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == ["llama_like", "mamba2_like"]
    assert rows[0]["kv_bytes"] > 0
    assert rows[1]["kv_bytes"] == 0


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["validate", "lama_like"], "did you mean 'llama_like'"),
        (["validate", "bad.yaml"], "unknown key 'arch.modles'; did you mean 'modules'"),
        (["sweep", "llama_like", "--set", "asha_etta=2"], "did you mean 'asha_eta'"),
        (["sweep", "llama_like", "--name", "../x"], "cannot name a folder"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_mistake_is_told_and_leaves_nothing(tmp_path: Path, arguments: list[str], part: str) -> None:
    (tmp_path / "bad.yaml").write_text("name: x\narch: {modles: {}, modules: {t: {}}, pipeline: []}\n")
    before = sorted(tmp_path.iterdir())
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_the_mixers_bench_runs() -> None:
    rows = list(bench_named("mixers").run(Options(quick=True)))
    assert [row.name for row in rows if row.value is None] == []
    assert len(rows) == 7

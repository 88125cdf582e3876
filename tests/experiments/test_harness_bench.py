"""`evoscale bench harness`: turns are fair, errors surface, and a small run of each part."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from experiments.benches.row import targets_of
from experiments.benches.training_race import Contestant, Race
from experiments.cli import app


def contestant(name: str, order: list[str], steps: int, seconds: float = 0.0) -> Contestant:
    def train(after_step: Callable[[], None]) -> None:
        for _ in range(steps):
            order.append(name)
            time.sleep(seconds)
            after_step()
        order.append(f"{name} ends")

    return train


def test_contestants_take_turns_and_only_their_own_time_counts() -> None:
    order: list[str] = []
    race = Race([contestant("a", order, 3), contestant("b", order, 3, 0.03)], 3, between=lambda: order.append("peak"))
    quick, slow = race.run()
    assert order == ["a", "b", "peak"] * 3 + ["a ends", "b ends"]
    assert len(quick.cpu) == len(slow.wall) == 3
    assert quick.median_wall(1) < 0.02 <= slow.median_wall(1)
    assert slow.median_cpu(1) < 0.02  # it slept


def test_an_error_of_a_contestant_ends_the_race() -> None:
    def broken(after_step: Callable[[], None]) -> None:
        after_step()
        raise ValueError("out of step")

    order: list[str] = []
    with pytest.raises(ValueError, match="out of step"):
        Race([contestant("a", order, 5), broken], 5).run()
    assert order.count("a") == 2
    assert threading.active_count() < 50


def test_every_promise_has_a_target() -> None:
    names = " ".join(targets_of("harness").names)
    for part in ("V=4096", "V=16384", "sgemm peak", "peak memory", "two one-thread processes", "2 workers over 1"):
        assert part in names


@pytest.mark.slow
def test_a_small_run_measures_every_part_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    done = CliRunner().invoke(app, ["bench", "harness", "--quick", "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    rows = {row["name"]: row for row in json.loads(done.stdout.strip().splitlines()[-1])["rows"]}
    for name in ("tokens a CPU second", "Hugging Face Trainer, its GPT-2", "Hugging Face Trainer, our model"):
        assert rows[f"V=512 B=2: {name}"]["value"] > 0
    assert 0 < rows["V=512 B=2: share of the sgemm peak"]["value"] < 1.5
    assert 0 < rows["peak memory of the fused loss at V=8192"]["value"] < 0.6
    assert 0 < rows["evaluation's share of a demo run's CPU time"]["value"] < 0.2

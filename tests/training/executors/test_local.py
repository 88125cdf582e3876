from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pytest

from training.executors.executor import Executor
from training.executors.local import LocalExecutor, default_workers, longest_first, worker_slot
from training.outcome import Diverged, Outcome
from training.run_spec import RunSpec

MakeSpec = Callable[..., RunSpec]


class _Recorder:
    """A measure that says what it was asked and how many ran at once."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.calls: list[tuple[str, str | None]] = []
        self.most = 0
        self._running = 0
        self._lock = threading.Lock()

    def __call__(self, spec: RunSpec, source: str | None) -> Outcome:
        with self._lock:
            self.calls.append((spec.key, source))
            self._running += 1
            self.most = max(self.most, self._running)
        time.sleep(self.seconds)
        with self._lock:
            self._running -= 1
        return Diverged(step=spec.seed, reason="measured")


def test_each_spec_is_measured_with_its_source(make_spec: MakeSpec) -> None:
    measure = _Recorder()
    executor: Executor
    with LocalExecutor(2, measure) as executor:
        futures = [executor.submit(make_spec(seed=seed), f"source {seed}") for seed in range(5)]
        assert [future.result(10) for future in futures] == [
            Diverged(step=seed, reason="measured") for seed in range(5)
        ]
    assert sorted(measure.calls) == sorted((make_spec(seed=seed).key, f"source {seed}") for seed in range(5))


def test_the_same_key_is_measured_once(make_spec: MakeSpec) -> None:
    measure = _Recorder(0.05)
    with LocalExecutor(4, measure) as executor:
        futures = [executor.submit(make_spec(), "s") for _ in range(8)]
        assert len({future.result(10).model_dump_json() for future in futures}) == 1
        executor.submit(make_spec(), "s").result(10)
    assert len(measure.calls) == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_than_the_workers_at_once(make_spec: MakeSpec, workers: int) -> None:
    measure = _Recorder(0.05)
    with LocalExecutor(workers, measure) as executor:
        for future in [executor.submit(make_spec(seed=seed)) for seed in range(9)]:
            future.result(10)
    assert measure.most == workers


def test_a_lost_run_is_simply_submitted_again(make_spec: MakeSpec) -> None:
    attempts: list[int] = []

    def measure(spec: RunSpec, source: str | None) -> Outcome:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("the worker is gone")
        return Diverged(step=1, reason="measured")

    with LocalExecutor(1, measure) as executor:
        with pytest.raises(ConnectionError):
            executor.submit(make_spec()).result(10)
        assert executor.submit(make_spec()).result(10) == Diverged(step=1, reason="measured")
    assert len(attempts) == 2


def test_closing_drops_what_has_not_begun(make_spec: MakeSpec) -> None:
    measure = _Recorder(0.2)
    executor = LocalExecutor(1, measure)
    futures = [executor.submit(make_spec(seed=seed)) for seed in range(5)]
    while not measure.calls:
        time.sleep(0.001)
    executor.close()
    assert futures[0].result(0) == Diverged(step=0, reason="measured")
    assert futures[-1].cancelled()
    with pytest.raises(RuntimeError):
        executor.submit(make_spec(seed=9))


def test_workers_default_to_the_cores_and_must_be_positive() -> None:
    with LocalExecutor(None, _Recorder()) as executor:
        assert executor.workers >= 1
    with pytest.raises(ValueError, match="workers=0"):
        LocalExecutor(0, _Recorder())


def test_each_worker_has_a_slot_of_its_own(make_spec: MakeSpec) -> None:
    seen: dict[str, set[int]] = {}
    together = threading.Barrier(3, timeout=20)

    def measure(spec: RunSpec, source: str | None) -> Outcome:
        together.wait()
        seen.setdefault(threading.current_thread().name, set()).add(worker_slot())
        return Diverged(step=0, reason="measured")

    with LocalExecutor(3, measure) as executor:
        for future in [executor.submit(make_spec(seed=seed)) for seed in range(6)]:
            future.result()
    assert sorted(seen.values(), key=min) == [{0}, {1}, {2}]
    assert worker_slot() == 0
    assert default_workers("cpu") == len(os.sched_getaffinity(0))


def test_the_longest_run_goes_first(make_spec: MakeSpec) -> None:
    specs = [make_spec(steps=steps, d_model=width, batch_size=4) for steps, width in ((30, 16), (10, 64), (40, 16))]
    assert [spec for spec, _ in longest_first((spec, "") for spec in specs)] == [specs[1], specs[2], specs[0]]

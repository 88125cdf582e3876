"""What the sandbox promises, measured: `evoscale bench sandbox`."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from .limits import Limits
from .result import Returned
from .supervisor import Sandbox

SANDBOX_TARGETS: Mapping[str, float] = {
    "cold start of the warm parent": 15.0,
    "CPU time to start and end a worker": 100.0,
    "start and end of a worker, median": 250.0,  # wall-clock: 35 ms on an idle machine
    "first optimiser step in a worker": 0.5,
    "overshoot of a time limit, worst": 0.25,
    "processes alive after a fork bomb": 0.0,
    "supervisor's CPU time for a worker that prints 1 GB": 0.5,
}
"""Largest value that holds, by row."""

_LIMITS = Limits(seconds=30, memory_bytes=1 << 30)
_MODULE = "evolution.sandbox.bench"


def bench_sandbox(targets: Mapping[str, float] = SANDBOX_TARGETS, *, calls: int = 50) -> list[dict[str, Any]]:
    """Measure every promise.

    Args:
        targets: largest value that holds, by row's name; a row without a target is measured and holds.
        calls: workers to start for the medians.

    Returns:
        Rows {"name", "value", "unit", "target", "holds"}.
    """
    began = time.perf_counter()
    with Sandbox() as sandbox:
        sandbox.warm_up()
        cold = time.perf_counter() - began
        spent = cpu_seconds_below(os.getpid())
        starts = [_seconds_of_a_call(sandbox) for _ in range(calls)]
        spent = cpu_seconds_below(os.getpid()) - spent
        step = sandbox.call(f"{_MODULE}:optimiser_step", None, limits=_LIMITS)
        overshoots = [_overshoot(sandbox) for _ in range(3)]
        before = os.times()
        sandbox.call(f"{_MODULE}:print_much", 1 << 30, limits=_LIMITS)
        after = os.times()
        sandbox.call(f"{_MODULE}:fork_for_ever", None, limits=Limits(seconds=2, processes=32))
        left = _alive_below(os.getpid()) - 2  # the warm parent and its launcher
    values = {
        "cold start of the warm parent": (cold, "s"),
        "CPU time to start and end a worker": (1e3 * spent / calls, "ms"),
        "start and end of a worker, median": (1e3 * quietest_median(starts), "ms"),
        "first optimiser step in a worker": (step.value if isinstance(step, Returned) else None, "s"),
        "overshoot of a time limit, worst": (max(overshoots), "s"),
        "processes alive after a fork bomb": (float(left), "processes"),
        "supervisor's CPU time for a worker that prints 1 GB": (sum(after[:2]) - sum(before[:2]), "s"),
    }
    return [_row(name, value, unit, targets.get(name)) for name, (value, unit) in values.items()]


def _row(name: str, value: float | None, unit: str, target: float | None) -> dict[str, Any]:
    holds = value is not None and (target is None or value <= target)
    return {"name": name, "value": value, "unit": unit, "target": target, "holds": holds}


def quietest_median(seconds: Sequence[float], burst: int = 10) -> float:
    """Median of the quietest burst of calls: other work on the machine lengthens wall times and never shortens them.

    Args:
        seconds: wall-clock times in the order they were taken.
        burst: calls that count together; a rest shorter than this joins no burst, unless there is nothing else.
    """
    bursts = [seconds[i : i + burst] for i in range(0, max(1, len(seconds) - burst + 1), burst)]
    return min(statistics.median(each) for each in bursts)


def _seconds_of_a_call(sandbox: Sandbox) -> float:
    began = time.perf_counter()
    sandbox.call("builtins:len", [], limits=_LIMITS)
    return time.perf_counter() - began


def _overshoot(sandbox: Sandbox, limit: float = 0.3) -> float:
    """Seconds past its limit after which a hanging worker and its end are over."""
    began = time.perf_counter()
    sandbox.call("time:sleep", 60, limits=Limits(seconds=limit))
    return time.perf_counter() - began - limit


def _alive_below(pid: int) -> int:
    import psutil

    until = time.monotonic() + 1.0
    while len(found := psutil.Process(pid).children(recursive=True)) > 2 and time.monotonic() < until:
        time.sleep(0.01)
    return len(found)


def cpu_seconds_below(pid: int) -> float:
    """CPU time of the processes below `pid` and of all those that they waited for, in seconds."""
    import psutil

    times = [process.cpu_times() for process in psutil.Process(pid).children(recursive=True)]
    return float(sum(each.user + each.system + each.children_user + each.children_system for each in times))


def optimiser_step(_: object) -> float:
    """Target: seconds to build a small model and take its first optimiser step."""
    import torch

    began = time.perf_counter()
    model = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.GELU(), torch.nn.Linear(32, 32))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.ones(8, 32)).square().mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return time.perf_counter() - began


def print_much(n_bytes: int) -> None:
    """Target: print `n_bytes` bytes."""
    block = b"x" * (1 << 20)
    for _ in range(n_bytes >> 20):
        os.write(1, block)


def fork_for_ever(_: object) -> None:
    """Target: a fork bomb."""
    while True:
        with contextlib.suppress(OSError):
            os.fork()

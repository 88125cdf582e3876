"""`evoscale bench sandbox`: what isolation and guards cost, in CPU time with wall time beside it.

The wall time of a worker's start is the median of the quietest of several bursts: other work
on the machine lengthens a wall time and never shortens it. The guards' cost is the median
over honest controls of all frameworks, one at a time, from the block's text to the answer.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from experiments.benches.guards import LADDER, guardings
from experiments.benches.registry import Options
from experiments.benches.row import Row, Targets

_CONTROLS = ("qk_norm_dynamics", "null_mixer", "short_convolution_dynamics", "null_regression", "rotary_dynamics")
_STARTS, _QUICK_STARTS = 50, 10


def measure(options: Options, targets: Targets) -> Iterator[Row]:
    """Start workers, guard honest controls, and report; see the module."""
    from evolution.sandbox.bench import bench_sandbox

    for row in bench_sandbox({}, calls=_QUICK_STARTS if options.quick else _STARTS):
        yield targets.row(row["name"], row["value"], row["unit"])
    cpu, wall = _guard_costs(1 if options.quick else len(_CONTROLS))
    told = f"s at {LADDER} sizes"
    yield targets.row("CPU time of guards and sandbox a candidate, median", statistics.median(cpu), told)
    yield targets.row("wall time of guards and sandbox a candidate, median", statistics.median(wall), told)


def _guard_costs(count: int) -> tuple[list[float], list[float]]:
    """CPU and wall seconds of guarding each control, the sandbox's own processes included."""
    from evolution.ledger import Ledger
    from evolution.sandbox import Sandbox
    from evolution.sandbox.bench import cpu_seconds_below
    from frameworks.attention.controls.registry import control

    cpu, wall = [], []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evoscale-sandbox-")))
        ledger = stack.enter_context(Ledger.open(folder / "ledger.sqlite", create=True))
        sandbox = stack.enter_context(Sandbox())
        sandbox.warm_up()
        guards = guardings(ledger, sandbox)
        for name in _CONTROLS[:count]:
            entry = control(name)
            program = entry.program()
            spent = cpu_seconds_below(os.getpid()) + time.process_time()
            began = time.perf_counter()
            refused = guards[entry.framework].reject(program)
            wall.append(time.perf_counter() - began)
            cpu.append(cpu_seconds_below(os.getpid()) + time.process_time() - spent)
            if refused is not None:
                raise RuntimeError(f"the honest control {name} was refused: {refused}")
    return cpu, wall

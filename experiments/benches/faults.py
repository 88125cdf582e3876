"""`evoscale bench faults`: every fault, injected into real toy evolutions, with innocents beside it.

Three parts. *Undisturbed*: the innocent programs are measured with nothing else running.
*Forced*: an evolution whose guards let everything through, so that each hostile block is
trained in the sandbox, an innocent proposed after each. *Guarded*: a whole evolution on an
endpoint that alternates hostile blocks and faults of its own with good replies.

A row holds when the fault ended in its typed outcomes, the innocents' losses of its run are
the undisturbed ones to the last bit, the run ended with a report, and no process is left.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from experiments.benches.faulty_endpoint import ENDPOINT_FAULTS
from experiments.benches.hostile_blocks import HOSTILE_BLOCKS, QUICK, HostileBlock
from experiments.benches.leftovers import Leftovers
from experiments.benches.registry import Options
from experiments.benches.row import Row, Targets
from experiments.benches.toy_evolution import (
    FRAMEWORK,
    Entry,
    forced_run,
    guarded_run,
    measure_innocents,
    toy_config,
    toy_corpus,
)
from experiments.benches.trap import Trap, planted_key

_QUICK_FAULTS = ("endpoint: HTTP 500", "endpoint: null content", "endpoint: edits outside the block")
_INNOCENTS = 3


def measure(options: Options, targets: Targets) -> Iterator[Row]:
    """Inject every fault and report each; see the module. A quick run has one evolution and a few faults."""
    from evolution.ledger import Ledger
    from evolution.session import check_request, open_bench
    from frameworks.registry import framework

    began, spent = time.monotonic(), _cpu_seconds()
    hostile = [fault for fault in HOSTILE_BLOCKS if not options.quick or fault.name in QUICK]
    failing: list[Entry] = [
        (fault.name, fault) for fault in ENDPOINT_FAULTS if not options.quick or fault.name in _QUICK_FAULTS
    ]
    leftovers = Leftovers(mark=f"3600.{os.getpid()}")
    pristine = framework(FRAMEWORK)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evoscale-faults-")))
        stack.enter_context(planted_key())
        stack.enter_context(_quiet("openevolve"))
        corpus = toy_corpus()
        trap = stack.enter_context(Trap(folder, corpus.directory, leftovers.mark))
        programs = {fault.name: pristine.program(fault.block(pristine, trap.fill)) for fault in hostile}
        blocks: list[Entry] = [(name, program.block) for name, program in programs.items()]
        with ExitStack() as parts:
            ledger = parts.enter_context(Ledger.open(folder / "undisturbed.sqlite", create=True))
            bench = parts.enter_context(
                open_bench(check_request(toy_config()), folder, ledger, corpus, lambda event, payload: None)
            )
            innocents = measure_innocents(bench, 1 if options.quick else _INNOCENTS)
            forced = forced_run(folder / "forced", bench, [*failing, *blocks] if options.quick else blocks, innocents)
            refused = {name: bench.guarding.reject(program) for name, program in programs.items() if options.quick}
        runs = [forced]
        if not options.quick:
            runs.append(guarded_run(folder, [*failing, *blocks], innocents))
        proposals = runs[-1].proposals
        problems = [problem for run in runs for problem in run.problems] + leftovers.found() + trap.damage()

        reference = forced.outcomes[pristine.program().identity].get("val_loss")
        for fault in hostile:
            outcome = forced.outcomes.get(programs[fault.name].identity, {"status": "not measured"})
            status = proposals[fault.name].status
            if options.quick:  # its one evolution lets everything through, so the guards are asked beside it
                status = "rejected" if refused[fault.name] else "accepted"
            told = [*problems, *_contradictions(fault, outcome, reference, trap)]
            yield _row(targets, fault.name, f"{status} / {outcome['status']}", "guards / worker", told)
        for name, _ in failing:
            yield _row(targets, name, proposals[name].status, "proposal", problems)
        kept = [run.losses.get(key) == loss for run in runs for key, loss in innocents.losses.items()]
        yield targets.row("innocent runs with their undisturbed loss", sum(kept) / len(kept), f"share of {len(kept)}")
        yield targets.row("processes left alive or unreaped", len(leftovers.found()), "processes")
        yield targets.row("CPU time of this bench", _cpu_seconds() - spent, "s")
        yield targets.row("wall time of this bench", time.monotonic() - began, "s")


def _cpu_seconds() -> float:
    """CPU seconds of this process and of every process that ended below it."""
    return sum(os.times()[:4])


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Without the log of failed requests, which are asked for here."""
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)


def _contradictions(fault: HostileBlock, outcome: Mapping[str, Any], reference: float | None, trap: Trap) -> list[str]:
    """What in a hostile block's outcome speaks against its having run as it should."""
    problems = []
    words = fault.words(trap.fill)
    if words not in f"{outcome.get('error', '')} {outcome.get('detail', '')}":
        problems.append(f"{words!r} is not in its outcome ({outcome.get('error', 'no error')})")
    if fault.unchanged and outcome.get("val_loss") != reference:
        problems.append("its loss is not the reference's")
    return problems


def _row(targets: Targets, name: str, value: str, unit: str, problems: Sequence[str]) -> Row:
    """A row whose value tells what was wrong beside the outcome, where anything was."""
    return targets.row(name, "; ".join([value, *dict.fromkeys(problems)]), unit, holds=not problems)

"""`evoscale bench guards`: every control before the guards, as the engine would put it there.

Cheats must all be rejected before any training; positive, honest and null controls must all
pass. Each control is guarded over the sizes of the demo ladder, several workers at once.
With a folder, its programs are tried after the controls and have rates of their own.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.benches.program_folder import NoProgramError, ProgramFile, RefusedProgramError, program_files
from experiments.benches.registry import Options, UnusableOptionError
from experiments.benches.row import Row, Targets

if TYPE_CHECKING:
    from evolution.guarding import Guarding
    from evolution.ledger import Ledger
    from evolution.sandbox import Sandbox
    from frameworks.program import Program

LADDER = "demo"
_QUICK = ("batch_neighbours", "null_dynamics")
_LONGEST = 300


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """A program with the conclusion it must come to: `rejected`, `passed`, or None."""

    name: str
    kind: str
    expected: str | None
    file: ProgramFile | None = None
    framework: str = ""
    program: Program | None = None


@dataclass(frozen=True, kw_only=True)
class _Conclusion:
    """`rejected`, `passed` or `no program`, and why, on one line."""

    verdict: str
    why: str = ""


def measure(options: Options, targets: Targets) -> Iterator[Row]:
    """Guard every control, and every program of a folder where one is given; see the module."""
    from training.executors.local import available_cores

    trials = list(_controls(options.quick))
    if options.programs is not None:
        files = list(program_files(options.programs))
        if not files:
            raise UnusableOptionError(f"--programs {options.programs}: the folder holds no file")
        trials += [_Trial(name=file.name, kind="program", expected=file.expected, file=file) for file in files]
    counted: dict[tuple[bool, str], list[bool]] = {}
    with _open_guards() as guards, ThreadPoolExecutor(options.workers or available_cores()) as pool:
        for trial, conclusion in zip(trials, pool.map(guards.conclude, trials), strict=True):
            yield _row(trial, conclusion)
            if trial.expected is not None and conclusion.verdict != "no program":
                key = (trial.file is not None, trial.expected)
                counted.setdefault(key, []).append(conclusion.verdict == "rejected")
    for (of_folder, expected), rejected in sorted(counted.items(), reverse=True):
        yield from _rates(of_folder, expected, rejected, targets)
    if not options.quick:
        yield targets.row("honest programs tried", len(counted.get((False, "passed"), [])), "programs")


def _controls(quick: bool) -> Iterator[_Trial]:
    """Cheats first."""
    from frameworks.attention.controls.registry import controls

    known = controls()
    for control in sorted(known, key=lambda entry: entry.kind != "cheat"):
        if quick and control.name not in _QUICK:
            continue
        yield _Trial(
            name=control.name,
            kind=f"{control.kind}, {control.framework}",
            expected="rejected" if control.kind == "cheat" else "passed",
            framework=control.framework,
            program=control.program(),
        )


def guardings(ledger: Ledger, sandbox: Sandbox) -> dict[str, Guarding]:
    """The guards of every framework over the demo ladder's sizes, as an evolution has them."""
    from evolution.config import LimitsSection
    from evolution.guarding import Guarding
    from evolution.stages import guard_sizes
    from frameworks.registry import frameworks
    from training.ladder import ladder

    rungs = ladder(LADDER)
    return {
        entry.name: Guarding(
            ledger=ledger,
            sandbox=sandbox,
            framework=entry,
            sizes=guard_sizes(rungs, rungs.vocab_size),
            seed=1,
            limits=LimitsSection(),
        )
        for entry in frameworks().values()
    }


class _Guards:
    """The guards of every framework over one sandbox; safe to use from several threads."""

    def __init__(self, ledger: Ledger, sandbox: Sandbox) -> None:
        self._ledger = ledger
        self._guarding = guardings(ledger, sandbox)
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}

    def conclude(self, trial: _Trial) -> _Conclusion:
        """What the guards say of a program; whatever is wrong with a file is a conclusion too."""
        framework, program = trial.framework, trial.program
        if trial.file is not None:
            try:
                found, program = trial.file.program()
            except NoProgramError as error:
                return _Conclusion(verdict="no program", why=str(error))
            except RefusedProgramError as error:
                return _Conclusion(verdict="rejected", why=f"as a program: {error}")
            framework = found.name
        if program is None:
            raise ValueError(f"trial {trial.name} has neither a file nor a program")
        with self._lock:
            busy = self._busy.setdefault(program.identity, threading.Lock())
        with busy:  # the same program twice is guarded once
            passed = self._guarding[framework].reject(program) is None
        if passed:
            return _Conclusion(verdict="passed")
        event = self._ledger.event("guard", program.identity)
        return _Conclusion(verdict="rejected", why=_evidence(event.payload) if event else "")


@contextmanager
def _open_guards() -> Iterator[_Guards]:
    from evolution.ledger import Ledger
    from evolution.sandbox import Sandbox

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evoscale-guards-")))
        ledger = stack.enter_context(Ledger.open(folder / "ledger.sqlite", create=True))
        yield _Guards(ledger, stack.enter_context(Sandbox()))


def _evidence(payload: Any) -> str:
    """The failed guard, its reason and the numbers behind it."""
    failed = next(report for report in payload["reports"] if not report["passed"])
    numbers = json.dumps(failed["evidence"]) if failed["evidence"] else ""
    return " ".join(f"by {failed['guard']}: {failed['reason']} {numbers}".split())


def _row(trial: _Trial, conclusion: _Conclusion) -> Row:
    why = conclusion.why if len(conclusion.why) <= _LONGEST else f"{conclusion.why[:_LONGEST]} ..."
    return Row(
        name=f"{trial.name} ({trial.kind})" if trial.file is None else trial.name,
        value=f"{conclusion.verdict} {why}".strip(),
        unit="",
        target=trial.expected,
        holds=trial.expected in (None, conclusion.verdict),
        rule="" if trial.expected is None else "is",
    )


def _rates(of_folder: bool, expected: str, rejected: Iterable[bool], targets: Targets) -> Iterator[Row]:
    """The rejected share with both ends of its Wilson interval."""
    from analysis.calibration import wilson_interval

    counts = list(rejected)
    rate = wilson_interval(sum(counts), len(counts))
    name = f"{'cheats' if expected == 'rejected' else 'honest programs'} rejected"
    if of_folder:
        name += " in the folder"
    yield targets.row(name, rate.rate, f"share, {rate.successes} of {rate.trials}")
    yield targets.row(f"{name}, lower end of the 95 % Wilson interval", rate.low, "share")
    yield targets.row(f"{name}, upper end of the 95 % Wilson interval", rate.high, "share")

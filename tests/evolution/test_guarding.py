"""What a worker says of a candidate is taken for what it is: the word of a process that the candidate shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evolution.config import LimitsSection
from evolution.guarding import Guarding
from evolution.guards.registry import guards
from evolution.ledger import Ledger
from evolution.measurement import MeasurementError
from evolution.sandbox import Limits, Raised, Returned, WorkerResult
from evolution.stages import guard_sizes
from frameworks.registry import framework
from training.ladder import ladder

NAMES = [guard.name for guard in guards("dynamic")]


class Answering:
    """Stands for a sandbox whose worker ends in a given way."""

    def __init__(self, result: WorkerResult) -> None:
        self.result = result

    def call(self, target: str, arguments: Any, *, limits: Limits) -> WorkerResult:
        return self.result


def report(name: str, passed: bool = True, **changes: Any) -> dict[str, Any]:
    return {"guard": name, "passed": passed, "reason": "as it is", "evidence": {}, "seconds": 0.1} | changes


def guarding(tmp_path: Path, result: WorkerResult) -> tuple[Guarding, Ledger]:
    rungs = ladder("debug")
    ledger = Ledger.open(tmp_path / "ledger.sqlite", create=True)
    sandbox: Any = Answering(result)
    return (
        Guarding(
            ledger=ledger,
            sandbox=sandbox,
            framework=framework("matrix_mixer"),
            sizes=guard_sizes(rungs, rungs.vocab_size),
            seed=1,
            limits=LimitsSection(),
        ),
        ledger,
    )


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        "passed",
        [1],
        [[]],
        [{}],
        [report(NAMES[0])],
        [report(name) for name in NAMES[1:]],
        [report(name) for name in reversed(NAMES)],
        [report(name) for name in NAMES] + [report("mine")],
        [report(NAMES[0], passed=False), *(report(name) for name in NAMES[1:])],
        [report(name, passed=1) for name in NAMES],
        [report(name, seconds=10**400) for name in NAMES],
        [report(name, evidence=7) for name in NAMES],
    ],
    ids=lambda value: repr(value)[:40],
)
def test_reports_that_the_guards_cannot_have_made_reject(tmp_path: Path, value: Any) -> None:
    guard, ledger = guarding(tmp_path, Returned(value))
    program = framework("matrix_mixer").program()
    with ledger:
        reason = guard.reject(program)
        assert reason is not None
        assert "InvalidResult" in reason
        assert guard.reject(program) == reason


def test_the_whole_list_passes_and_a_failure_ends_it(tmp_path: Path) -> None:
    program = framework("matrix_mixer").program()
    guard, ledger = guarding(tmp_path, Returned([report(name) for name in NAMES]))
    with ledger:
        assert guard.reject(program) is None
    (tmp_path / "other").mkdir()
    guard, ledger = guarding(tmp_path / "other", Returned([report(NAMES[0]), report(NAMES[1], passed=False)]))
    with ledger:
        assert guard.reject(program) == f"guard {NAMES[1]}: as it is"


def test_a_fault_of_the_sandbox_is_not_held_against_the_candidate(tmp_path: Path) -> None:
    guard, ledger = guarding(tmp_path, Raised("SandboxError", "no warm parent"))
    program = framework("matrix_mixer").program()
    with ledger:
        with pytest.raises(MeasurementError, match="no warm parent"):
            guard.reject(program)
        assert ledger.event("guard", program.identity) is None

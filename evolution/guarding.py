"""Checks a program before anything is spent on it, and remembers the answer.

Static guards read the text here; dynamic guards run the program in a sandboxed worker.
The answer is in the ledger under the candidate's identity and is not computed twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data.keyed_random import seed_of
from evolution.config import LimitsSection
from evolution.measurement import GIBIBYTE, MeasurementError, outcome_of
from frameworks.program import Program

if TYPE_CHECKING:
    from evolution.guards.report import GuardReport
    from evolution.ledger import Ledger
    from evolution.sandbox import Sandbox
    from frameworks.registry import Framework

CHECK_TARGET = "evolution.guards.worker:check"


class Guarding:
    """The guards over one run.

    Args:
        ledger: holds the reports.
        sandbox: where dynamic guards run the candidate.
        framework: what evolves.
        sizes: model sizes every candidate must build at.
        seed: the run's seed; the probes' lengths, positions and values follow it.
        limits: what the worker may use.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        sandbox: Sandbox,
        framework: Framework,
        sizes: list[dict[str, int]],
        seed: int,
        limits: LimitsSection,
    ) -> None:
        self._ledger = ledger
        self._sandbox = sandbox
        self._framework = framework
        self._sizes = sizes
        self._seed = seed
        self._limits = limits

    def reject(self, program: Program) -> str | None:
        """Why the program may not be measured, or None when it passed every guard.

        Raises:
            MeasurementError: the sandbox itself failed, which says nothing about the program.
        """
        stored = self._ledger.event("guard", program.identity)
        if stored is not None:
            reason = stored.payload["reason"]
            return None if reason is None else str(reason)
        reports, reason = self._check(program)
        self._ledger.record(
            "guard",
            {"candidate": program.identity, "reason": reason, "reports": reports, "block": program.block},
            key=program.identity,
        )
        return reason

    def fingerprint(self, program: Program) -> str | None:
        """What the program does on fixed inputs, as a hash (see `guards.fingerprint`); None where it is not known."""
        stored = self._ledger.event("guard", program.identity)
        reports = stored.payload["reports"] if stored is not None else []
        found = reports[-1]["evidence"].get("fingerprint") if reports else None
        return found if isinstance(found, str) and len(found) == 64 else None

    def _check(self, program: Program) -> tuple[list[dict[str, Any]], str | None]:
        from evolution.guards.registry import static_guards
        from evolution.sandbox import Limits, Raised, Returned
        from training.outcome import explain

        reports: list[dict[str, Any]] = [_as_json(report) for report in static_guards(self._framework, program.block)]
        if reports and not reports[-1]["passed"]:
            return reports, _reason(reports[-1])
        result = self._sandbox.call(
            CHECK_TARGET,
            {
                "framework": self._framework.name,
                "source": program.source,
                "sizes": self._sizes,
                "probe_seed": seed_of("probes", self._seed, program.identity) % 2**31,
            },
            limits=Limits(seconds=self._limits.guard_seconds, memory_bytes=int(self._limits.memory_gb * GIBIBYTE)),
        )
        if isinstance(result, Raised) and result.error == "SandboxError":  # a name that no candidate can take
            raise MeasurementError(
                f"candidate {program.identity[:12]} could not be guarded ({result.detail.strip()[:300]}); "
                "nothing of it was recorded, and the same command goes on once this is mended"
            )
        found = _dynamic_reports(result.value) if isinstance(result, Returned) else None
        if found is None:
            outcome = outcome_of(result)
            reason = f"guards: {explain(outcome)}"
            reports.append({"guard": "worker", "passed": False, "reason": reason, "evidence": {}, "seconds": None})
            return reports, reason
        reports.extend(found)
        return reports, None if reports[-1]["passed"] else _reason(reports[-1])


def _dynamic_reports(value: Any) -> list[dict[str, Any]] | None:
    """What the worker's guards reported; None where they cannot have: a candidate shares their process.

    Every guard in the registry's order, and none but the last has failed.
    """
    from evolution.guards.registry import guards
    from evolution.guards.report import GuardReport

    names = [guard.name for guard in guards("dynamic")]
    try:
        found = [GuardReport.from_json(row) for row in value]
    except (TypeError, ValueError, OverflowError):
        return None
    ran = [report.guard for report in found]
    if not found or ran != names[: len(ran)] or not all(report.passed for report in found[:-1]):
        return None
    return [report.to_json() for report in found] if len(ran) == len(names) or not found[-1].passed else None


def _reason(report: dict[str, Any]) -> str:
    return f"guard {report['guard']}: {report['reason']}"


def _as_json(report: GuardReport) -> dict[str, Any]:
    return {
        "guard": report.guard,
        "passed": report.passed,
        "reason": report.reason,
        "evidence": report.evidence,
        "seconds": report.seconds,
    }

"""What one guard says of one candidate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class GuardReport:
    """The finding of one guard.

    Attributes:
        guard: the guard's name in the registry.
        passed: whether the candidate may go on.
        reason: one sentence for the proposer: where, what was seen, what is allowed.
        evidence: the numbers behind the reason; JSON values only.
        seconds: wall seconds the guard took.
    """

    guard: str
    passed: bool
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; numbers that JSON cannot hold become their names ("inf", "nan")."""
        return {
            "guard": self.guard,
            "passed": self.passed,
            "reason": self.reason,
            "evidence": _json_value(self.evidence),
            "seconds": self.seconds,
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> GuardReport:
        """The report that `to_json` wrote.

        Raises:
            ValueError: a field is missing or has another type.
        """
        try:
            report = GuardReport(
                guard=row["guard"],
                passed=row["passed"],
                reason=row["reason"],
                evidence=dict(row["evidence"]),
                seconds=float(row["seconds"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a guard report: {type(error).__name__}: {error} in {str(row)[:200]}") from None
        if not (isinstance(report.guard, str) and isinstance(report.passed, bool) and isinstance(report.reason, str)):
            raise ValueError(f"not a guard report: guard and reason are text, passed is a boolean: {str(row)[:200]}")
        return report


def _json_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)

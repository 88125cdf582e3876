"""Run the dynamic guards on one candidate. Executes untrusted code: call it inside a sandboxed worker only."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evolution.guards.registry import guards
from evolution.guards.report import GuardReport
from evolution.guards.subject import Subject


def check(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Reports of the dynamic guards in order, up to and including the first that fails, as JSON values.

    Args:
        arguments: `framework` (name), `source` (whole program file), `sizes` (list of {d_model, n_heads, n_layers,
            vocab_size, seq_len, batch_size}), `probe_seed`, and optionally `device` ("cpu") and `precision` ("fp32").

    Raises:
        KeyError, ValueError: the arguments themselves are wrong. A failing candidate never raises.
    """
    return [report.to_json() for report in check_subject(Subject.from_arguments(arguments))]


def check_subject(subject: Subject) -> list[GuardReport]:
    """As `check`, on a subject, with reports."""
    reports: list[GuardReport] = []
    for guard in guards("dynamic"):
        started = time.perf_counter()
        try:
            report = guard.function()(subject)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit and the like come from the candidate too
            reason = f"the candidate failed: {subject.explain(error)}"
            report = GuardReport(
                guard=guard.name, passed=False, reason=reason, evidence={"error": type(error).__name__}
            )
        reports.append(replace(report, seconds=time.perf_counter() - started))
        if not report.passed:
            break
    return reports

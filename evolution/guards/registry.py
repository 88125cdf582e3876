"""The guards in the order they run, cheapest first, and the loop that runs the static ones.

A static guard reads the block's text in the supervisor. A dynamic guard builds and runs the candidate and belongs in
a sandboxed worker, see `worker.check`. Targets are text, so that looking at the registry imports no torch.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from evolution.guards.report import GuardReport
from frameworks.registry import Framework

Stage = Literal["static", "dynamic"]


@dataclass(frozen=True, kw_only=True)
class Guard:
    """One guard.

    Attributes:
        name: how reports and verdicts call it.
        stage: static (the block's text) or dynamic (the built candidate).
        target: "module:function".
        summary: one line for reports and `--help`.
    """

    name: str
    stage: Stage
    target: str
    summary: str

    def function(self) -> Callable[..., GuardReport]:
        """The guard's function, imported now."""
        module, _, name = self.target.partition(":")
        found: Any = getattr(importlib.import_module(module), name)
        return found  # type: ignore[no-any-return]


def _guard(stage: Stage, name: str, summary: str) -> Guard:
    return Guard(name=name, stage=stage, target=f"evolution.guards.{name}:check", summary=summary)


GUARDS: tuple[Guard, ...] = (
    _guard("static", "size", "text, nesting and constants stay within limits"),
    _guard("static", "block_only", "the block parses and nothing outside it changes"),
    _guard("static", "imports", "only torch, math, einops and typing names are imported"),
    _guard("static", "names", "only the block's own names and a few builtins are used"),
    _guard("static", "attributes", "only listed tensor, module and own attributes are reached"),
    _guard("static", "statements", "no state outside __init__, no patching, no hidden control flow"),
    _guard("static", "interface", "the block class has the constructor and forward the shell calls"),
    _guard("dynamic", "build", "builds at every size, reproducibly"),
    _guard("dynamic", "parity", "parameters within 2 % of the reference"),
    _guard("dynamic", "forward", "shapes, dtypes, finite gradients that reach every parameter"),
    _guard("dynamic", "cost", "a step stays within four times the reference's time and six times its memory"),
    _guard("dynamic", "state", "calls leave nothing behind"),
    _guard("dynamic", "batch", "rows of the batch are independent"),
    _guard("dynamic", "causality", "no output depends on a later input"),
    _guard("dynamic", "sweeps", "no leak opens at a narrow window of weights or lengths"),
    _guard("dynamic", "jacobian", "the Jacobian is lower triangular"),
    _guard("dynamic", "branches", "nothing leaks behind a condition that ordinary calls do not meet"),
    _guard("dynamic", "model_causality", "no feature of the whole model depends on a later token"),
    _guard("dynamic", "fingerprint", "refuses nothing; notes what the candidate does, to know its copies"),
)


def guards(stage: Stage) -> tuple[Guard, ...]:
    """The guards of one stage in running order."""
    return tuple(guard for guard in GUARDS if guard.stage == stage)


def static_guards(framework: Framework, block: str) -> list[GuardReport]:
    """Run the static guards on a block's text and stop at the first that fails.

    Never raises: a guard that cannot judge a text fails it, because what it could not read it has not cleared.
    """
    reports: list[GuardReport] = []
    for guard in guards("static"):
        started = time.perf_counter()
        try:
            report = guard.function()(block, framework)
        except Exception as error:
            reason = f"the block could not be judged: {type(error).__name__}: {str(error)[:200]}; write plainer code"
            report = GuardReport(guard=guard.name, passed=False, reason=reason)
        reports.append(replace(report, seconds=time.perf_counter() - started))
        if not report.passed:
            break
    return reports

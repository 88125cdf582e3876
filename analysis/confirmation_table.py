"""The runs of a confirmation, checked against the plan before anything is computed.

A run that is missing, given twice or not in the plan is an error; so are losses of different
corpora or of another split than the plan's. A run that failed is kept as a failure. Nothing is
filled in and nothing is left out.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from analysis.differences import FloatArray
from analysis.promotion_plan import PromotionPlan
from analysis.verdict import RunFailure

STATUSES = ("Completed", "Rejected", "Crashed", "Diverged", "TimedOut", "OutOfMemory")
_SPELLINGS = {status.lower(): status for status in STATUSES}
_NEEDED = ("candidate", "size", "seed", "status")
_REASONS = ("reason", "error", "detail")

RunKey = tuple[str, str, int]


@dataclass(frozen=True, kw_only=True)
class ConfirmationRun:
    """One run of the table; `val_loss` and `n_parameters` are None exactly when it did not complete."""

    status: str
    reason: str
    val_loss: float | None
    n_parameters: int | None
    flops: float | None
    cpu_seconds: float | None
    peak_memory_bytes: float | None


@dataclass(frozen=True, kw_only=True)
class ConfirmationTable:
    """Checked runs of a plan, keyed (candidate, size, seed)."""

    plan: PromotionPlan
    runs: Mapping[RunKey, ConfirmationRun]

    def is_complete(self, candidate: str) -> bool:
        """Whether every planned run of `candidate` is there and completed."""
        return all(
            (run := self.runs.get((candidate, size, seed))) is not None and run.status == "Completed"
            for size in self.plan.sizes
            for seed in self.plan.seeds
        )

    def failures(self, candidate: str) -> tuple[RunFailure, ...]:
        """The runs of `candidate` that did not complete, in the plan's order."""
        found = []
        for size in self.plan.sizes:
            for seed in self.plan.seeds:
                run = self.runs.get((candidate, size, seed))
                if run is not None and run.status != "Completed":
                    found.append(RunFailure(size=size, seed=seed, status=run.status, reason=run.reason))
        return tuple(found)

    def losses(self, candidate: str) -> FloatArray:
        """Validation losses, shape (seeds, sizes); every run of `candidate` must be complete."""
        return self._column(candidate, "val_loss")

    def parameters(self, candidate: str) -> FloatArray:
        """Parameters by size, shape (sizes,).

        Raises:
            ValueError: the number differs between seeds of one size.
        """
        table = self._column(candidate, "n_parameters")
        for column, size in enumerate(self.plan.sizes):
            if np.ptp(table[:, column]) > 0:
                raise ValueError(
                    f"{candidate!r} at size {size!r} has {int(table[:, column].min())} to "
                    f"{int(table[:, column].max())} parameters depending on the seed; one number is expected"
                )
        return np.asarray(table[0], dtype=np.float64)

    def costs(self, candidate: str, name: str) -> FloatArray | None:
        """A cost of every run, shape (seeds, sizes); None when any run does not report it."""
        table = self._column(candidate, name)
        return None if np.isnan(table).any() else table

    def _column(self, candidate: str, name: str) -> FloatArray:
        values = [
            [getattr(self.runs[candidate, size, seed], name) for size in self.plan.sizes] for seed in self.plan.seeds
        ]
        return np.array(values, dtype=np.float64)


def confirmation_table(
    plan: PromotionPlan, rows: Iterable[Mapping[str, Any]], *, excused: Iterable[str] = ()
) -> ConfirmationTable:
    """Checks `rows` against `plan`.

    Args:
        plan: the plan.
        rows: one mapping per run with candidate, size, seed, status, val_loss, n_parameters and, where known, flops,
            cpu_seconds, peak_memory_bytes, reason, split, corpus_hash.
        excused: candidates whose runs may be missing because a guard stopped them.

    Raises:
        ValueError: a run is missing, double or not in the plan; a status, loss, cost or number of parameters is not
            legal; splits or corpora differ; or a run of the reference did not complete.
    """
    runs: dict[RunKey, ConfirmationRun] = {}
    corpora: set[str] = set()
    for row in rows:
        key = _key(plan, row)
        if key in runs:
            raise ValueError(f"{_named(key)} is given twice; a run is measured once")
        if row.get("split", plan.split) != plan.split:
            raise ValueError(f"{_named(key)} was measured on split {row['split']!r}; the plan says {plan.split!r}")
        if row.get("corpus_hash") is not None:
            corpora.add(str(row["corpus_hash"]))
        runs[key] = _run(key, row)
    if len(corpora) > 1:
        raise ValueError(
            f"runs on different corpora cannot be compared; corpus hashes seen: {', '.join(sorted(corpora))}"
        )
    table = ConfirmationTable(plan=plan, runs=runs)
    free = set(excused)
    missing = [
        (candidate, size, seed)
        for candidate in (plan.reference, *plan.shortlist)
        if candidate not in free
        for size in plan.sizes
        for seed in plan.seeds
        if (candidate, size, seed) not in runs
    ]
    if missing:
        raise ValueError(
            f"{len(missing)} planned run(s) are missing, first {_named(missing[0])}; missing is not failed"
        )
    broken = table.failures(plan.reference)
    if broken:
        first = broken[0]
        raise ValueError(
            f"the reference {plan.reference!r} must complete every run; {len(broken)} did not, "
            f"first size {first.size!r}, seed {first.seed}: {first.status}"
        )
    return table


def _named(key: RunKey) -> str:
    return f"the run of {key[0]!r} at size {key[1]!r}, seed {key[2]}"


def _key(plan: PromotionPlan, row: Mapping[str, Any]) -> RunKey:
    for name in _NEEDED:
        if name not in row:
            raise ValueError(f"a row lacks {name!r}; it has {', '.join(map(str, row))}")
    key = (row["candidate"], row["size"], row["seed"])
    allowed = {"candidate": (plan.reference, *plan.shortlist), "size": plan.sizes, "seed": plan.seeds}
    for (name, planned), value in zip(allowed.items(), key, strict=True):
        if value not in planned:
            near = difflib.get_close_matches(str(value), [str(entry) for entry in planned], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"a row has {name} {value!r}, which is not in the plan{hint} Planned: {', '.join(map(str, planned))}"
            )
    return key


def _run(key: RunKey, row: Mapping[str, Any]) -> ConfirmationRun:
    status = _SPELLINGS.get(str(row["status"]).replace("_", "").lower())
    if status is None:
        raise ValueError(f"{_named(key)} has status {row['status']!r}; allowed: {', '.join(STATUSES)}")
    reason = next((str(row[name]) for name in _REASONS if row.get(name)), "")
    loss, parameters = row.get("val_loss"), row.get("n_parameters")
    if status != "Completed":
        if loss is not None:
            raise ValueError(f"{_named(key)} is {status} but has val_loss {loss!r}; a failure is never a number")
        return ConfirmationRun(
            status=status,
            reason=reason,
            val_loss=None,
            n_parameters=None,
            flops=None,
            cpu_seconds=None,
            peak_memory_bytes=None,
        )
    if not _is_number(loss):
        raise ValueError(f"{_named(key)} is Completed with val_loss {loss!r}; a finite number is expected")
    if not _is_number(parameters) or parameters <= 0:
        raise ValueError(f"{_named(key)} is Completed with n_parameters {parameters!r}; a positive number is expected")
    for name in ("flops", "cpu_seconds", "peak_memory_bytes"):
        if row.get(name) is not None and (not _is_number(row[name]) or row[name] < 0):
            raise ValueError(f"{_named(key)} has {name} {row[name]!r}; a number of at least 0, or None, is expected")
    return ConfirmationRun(
        status=status,
        reason=reason,
        val_loss=float(loss),
        n_parameters=int(parameters),
        flops=row.get("flops"),
        cpu_seconds=row.get("cpu_seconds"),
        peak_memory_bytes=row.get("peak_memory_bytes"),
    )


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)

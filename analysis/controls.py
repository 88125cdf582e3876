"""Did every control get the verdict expected of it?

Controls are candidates whose answer is known: a rewrite of the reference, a real improvement, a
sprinter, a leak. A machine that misjudges them is not to be believed about anything else.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from analysis.verdict import DECISIONS


@dataclass(frozen=True, kw_only=True)
class Misranked:
    """A control whose verdict is not among those expected.

    Attributes:
        control: its name.
        expected: decisions that would have been right.
        decision: the decision it got.
        sentence: the verdict's sentence, empty when the row had none.
    """

    control: str
    expected: tuple[str, ...]
    decision: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class ControlReport:
    """Result of `control_report`.

    Attributes:
        as_expected: controls that got an expected verdict.
        misranked: controls that did not.
        not_evaluated: controls without a verdict; not evaluated is not failed, and not passed either.
        sentence: the outcome in one sentence.
    """

    as_expected: tuple[str, ...]
    misranked: tuple[Misranked, ...]
    not_evaluated: tuple[str, ...]
    sentence: str

    @property
    def passed(self) -> bool:
        """Every control was evaluated and got an expected verdict."""
        return not self.misranked and not self.not_evaluated


def control_report(rows: Iterable[Mapping[str, Any]]) -> ControlReport:
    """Compares verdicts of controls with what was expected.

    Args:
        rows: one mapping per control with control (name), expected (a decision or a list of decisions), decision (None
            when it has no verdict yet) and optionally sentence.

    Raises:
        ValueError: no control, one given twice, a row without one of the fields, or an unknown decision.
    """
    as_expected: list[str] = []
    misranked: list[Misranked] = []
    not_evaluated: list[str] = []
    seen: set[str] = set()
    for row in rows:
        for name in ("control", "expected", "decision"):
            if name not in row:
                raise ValueError(f"a control's row lacks {name!r}; it has {', '.join(map(str, row))}")
        control, decision = str(row["control"]), row["decision"]
        if control in seen:
            raise ValueError(f"control {control!r} is given twice")
        seen.add(control)
        given = row["expected"]
        expected = tuple(_decision(control, value) for value in ([given] if isinstance(given, str) else given))
        if not expected:
            raise ValueError(f"control {control!r} expects no decision; name at least one of {', '.join(DECISIONS)}")
        if decision is None:
            not_evaluated.append(control)
        elif _decision(control, decision) in expected:
            as_expected.append(control)
        else:
            misranked.append(
                Misranked(
                    control=control, expected=expected, decision=decision, sentence=str(row.get("sentence") or "")
                )
            )
    if not seen:
        raise ValueError("there is no control; a calibration without controls says nothing")
    return ControlReport(
        as_expected=tuple(as_expected),
        misranked=tuple(misranked),
        not_evaluated=tuple(not_evaluated),
        sentence=_sentence(len(seen), as_expected, misranked, not_evaluated),
    )


def _decision(control: str, value: object) -> str:
    if value in DECISIONS:
        return str(value)
    near = difflib.get_close_matches(str(value), DECISIONS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"control {control!r}: unknown decision {value!r}{hint} Known: {', '.join(DECISIONS)}")


def _sentence(total: int, as_expected: list[str], misranked: list[Misranked], not_evaluated: list[str]) -> str:
    parts = [f"{len(as_expected)} of {total} controls got the expected verdict"]
    if misranked:
        wrong = ", ".join(f"{one.control} was {one.decision}, not {' or '.join(one.expected)}" for one in misranked)
        parts.append(f"misranked: {wrong}")
    if not_evaluated:
        parts.append(f"not evaluated: {', '.join(not_evaluated)}")
    return "; ".join(parts) + "."

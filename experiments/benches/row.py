"""One measured promise, and the targets that say whether it holds.

Targets stand in `experiments/benchmarks.yaml`: bench -> row -> `at_most`, `at_least` or
`is`. A bench makes its rows through `Targets.row`, so that no number that decides stands
in code; a row without a target is reported and holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

Value = float | int | str | None

TARGETS_FILE = Path(__file__).parents[1] / "benchmarks.yaml"
_RULES = ("at_most", "at_least", "is")


class TargetError(ValueError):
    """The file of targets cannot be used; the message names the row and what is allowed."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One promise.

    Attributes:
        name: what was measured.
        value: what it came to; None: it could not be measured, and does not hold.
        unit: of the value, and of the target.
        target: the bound, or the value it must have; None: none is set.
        holds: whether the promise holds.
        rule: how the target is read: `at_most`, `at_least`, `is`, or empty without a target.
    """

    name: str
    value: Value
    unit: str
    target: Value
    holds: bool
    rule: str = ""

    def to_json(self) -> dict[str, Any]:
        """The row as the command prints it with `--json`."""
        fields = asdict(self)
        del fields["rule"]
        return fields


class Targets:
    """The targets of one bench.

    Args:
        bench: its name in the file.
        rows: row -> {rule: bound}.

    Raises:
        TargetError: a rule that does not exist, or a bound that is no number where one is needed.
    """

    def __init__(self, bench: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
        for name, rule in rows.items():
            if not isinstance(rule, Mapping) or len(rule) != 1 or not set(rule) <= set(_RULES):
                raise TargetError(f"{bench}: {name}: {rule!r} is no target; write one of {', '.join(_RULES)}")
            ((kind, bound),) = rule.items()
            if kind != "is" and (isinstance(bound, bool) or not isinstance(bound, int | float)):
                raise TargetError(f"{bench}: {name}: {kind} is {bound!r}; it must be a number")
        self._rows = {name: next(iter(rule.items())) for name, rule in rows.items()}

    @property
    def names(self) -> list[str]:
        """Rows that have a target, in the file's order."""
        return list(self._rows)

    def bound(self, name: str) -> Value:
        """The target of a row; None where it has none."""
        return self._rows[name][1] if name in self._rows else None

    def row(self, name: str, value: Value, unit: str, *, holds: bool = True) -> Row:
        """The row of a measured value; `holds=False` makes it fall short whatever its target says."""
        if name not in self._rows:
            return Row(name=name, value=value, unit=unit, target=None, holds=holds and value is not None)
        rule, bound = self._rows[name]
        return Row(
            name=name, value=value, unit=unit, target=bound, holds=holds and _meets(value, rule, bound), rule=rule
        )


def _meets(value: Value, rule: str, bound: Any) -> bool:
    if value is None:
        return False
    if rule == "is":
        return bool(value == bound)
    if isinstance(value, str) or not math.isfinite(value):
        return False
    return bool(value <= bound if rule == "at_most" else value >= bound)


@cache
def _all_targets() -> dict[str, dict[str, Any]]:
    import yaml

    loaded = yaml.safe_load(TARGETS_FILE.read_text(encoding="utf-8"))
    if not isinstance(loaded, dict) or not all(isinstance(rows, dict) for rows in loaded.values()):
        raise TargetError(f"{TARGETS_FILE.name}: expected bench -> row -> rule")
    return loaded


def targets_of(bench: str) -> Targets:
    """The targets of a bench, empty where the file has none.

    Raises:
        TargetError: the file cannot be used.
    """
    return Targets(bench, _all_targets().get(bench, {}))

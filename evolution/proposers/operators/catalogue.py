"""The catalogue: every operator by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache

from evolution.proposers.operators.coefficient_operators import COEFFICIENT_OPERATORS
from evolution.proposers.operators.operator import Operator
from evolution.proposers.operators.output_operators import OUTPUT_OPERATORS
from evolution.proposers.operators.score_operators import SCORE_OPERATORS
from evolution.proposers.operators.signal_operators import SIGNAL_OPERATORS


@cache
def catalogue() -> dict[str, Operator]:
    """Operators that add something, by name, in a fixed order."""
    operators = (*SIGNAL_OPERATORS, *SCORE_OPERATORS, *COEFFICIENT_OPERATORS, *OUTPUT_OPERATORS)
    return {entry.name: entry for entry in operators}


def clash(names: Iterable[str]) -> bool:
    """Whether two of these operators make no sense together."""
    present = set(names)
    return any(present & set(catalogue()[name].excludes) for name in present if name in catalogue())


def operators_for(framework_name: str) -> list[Operator]:
    """Operators that work for the framework, in the catalogue's order."""
    return [entry for entry in catalogue().values() if framework_name in entry.frameworks]


def operator(name: str) -> Operator:
    """The operator called `name`.

    Raises:
        ValueError: there is none; the message lists near matches and all names.
    """
    known = catalogue()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(repr(match) for match in near)}?" if near else ""
    raise ValueError(f"unknown operator {name!r}{hint} Known: {', '.join(known)}")

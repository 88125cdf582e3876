"""A predeclared confirmation plan: checked, and hashed over all it says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from evolution.ledger.errors import PayloadError
from evolution.ledger.payload import canonical_json
from evolution.ledger.schema import FIRST_CONFIRMATION_SEED


def _distinct(plan: Mapping[str, Any], field: str, kind: type) -> list[Any]:
    values = plan.get(field)
    if not isinstance(values, list | tuple) or not values:
        raise PayloadError(f"the plan's {field} is {values!r}; a list with at least one entry is needed")
    for value in values:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise PayloadError(f"the plan's {field} holds {value!r}; every entry is a {kind.__name__}")
    if len(set(values)) != len(values):
        raise PayloadError(f"the plan's {field} holds an entry twice: {list(values)!r}")
    return list(values)


def check_plan(plan: Mapping[str, Any]) -> None:
    """Refuse a plan the seal could not enforce.

    A plan holds `reference` (candidate), `shortlist` (candidates, without the reference), `seeds`
    (whole numbers >= 20,000), `sizes` (names), and anything else that was decided in advance
    (alpha, least effect, tests, `corpus_hash`, which is then enforced too).

    Raises:
        PayloadError: a field is missing or not of that form.
    """
    reference = plan.get("reference")
    if not isinstance(reference, str) or not reference:
        raise PayloadError(f"the plan's reference is {reference!r}; a candidate's identity is needed")
    if reference in _distinct(plan, "shortlist", str):
        raise PayloadError(f"the plan's shortlist holds its reference {reference!r}; nothing is compared with itself")
    low = [seed for seed in _distinct(plan, "seeds", int) if seed < FIRST_CONFIRMATION_SEED]
    if low:
        raise PayloadError(f"the plan's seeds hold {low[0]}; confirmation seeds start at {FIRST_CONFIRMATION_SEED}")
    _distinct(plan, "sizes", str)


def plan_hash(plan: Mapping[str, Any]) -> str:
    """sha256 hex of the plan's canonical JSON: one changed field is another plan.

    Raises:
        PayloadError: the plan is not plain JSON.
    """
    return hashlib.sha256(canonical_json(plan, "plan").encode()).hexdigest()

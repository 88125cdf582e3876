"""Operators that take out or redraw what an earlier operator added."""

from __future__ import annotations

import random
from functools import cache

from evolution.proposers.operators.catalogue import catalogue
from evolution.proposers.operators.operator import Operator
from evolution.proposers.operators.slots import SLOTS
from frameworks.program import ProgramError, normalise_block


def present_operators(block: str, framework_name: str) -> list[str]:
    """Names of the catalogue's operators whose marks the block carries, in order of appearance."""
    from evolution.proposers.operators.block_editor import BlockEditor
    from evolution.proposers.operators.statements import ForeignBlockError

    known = catalogue()
    if framework_name not in SLOTS:
        return []
    try:
        return [name for name in BlockEditor(block, SLOTS[framework_name]).markers() if name in known]
    except ForeignBlockError:
        return []


def without_operator(block: str, framework_name: str, name: str) -> str | None:
    """The block without what the operator `name` added; None when that cannot be told apart."""
    from evolution.proposers.operators.block_editor import BlockEditor
    from evolution.proposers.operators.marked_edits import remove_edit
    from evolution.proposers.operators.statements import ForeignBlockError

    try:
        editor = BlockEditor(block, SLOTS[framework_name])
        remove_edit(editor, name)
        return editor.code
    except ForeignBlockError:
        return None


def _simplify(block: str, framework_name: str, rng: random.Random) -> str | None:
    present = present_operators(block, framework_name)
    rng.shuffle(present)
    for name in present:
        simpler = without_operator(block, framework_name, name)
        if simpler is not None:
            return simpler
    return None


def _redraw(block: str, framework_name: str, rng: random.Random) -> str | None:
    present = present_operators(block, framework_name)
    rng.shuffle(present)
    try:
        before = normalise_block(block)
        for name in present:
            simpler = without_operator(block, framework_name, name)
            for _ in range(4 if simpler else 0):
                again = catalogue()[name].apply(simpler or "", framework_name, rng)
                if again is not None and normalise_block(again) != before:
                    return again
    except ProgramError:
        return None
    return None


@cache
def simplification() -> Operator:
    """Takes out one operator's additions, each operator in the block equally likely."""
    return Operator(
        name="simplification",
        paper="ablation, the control that every addition owes",
        summary="take one earlier addition out again",
        frameworks=tuple(SLOTS),
        apply=_simplify,
    )


@cache
def redraw() -> Operator:
    """Takes one operator's additions out and applies it again with other choices, now last in its slots."""
    return Operator(
        name="redraw",
        paper="mutation of a parameter, as in any evolutionary algorithm",
        summary="apply one earlier addition again with other choices (width, targets, start value)",
        frameworks=tuple(SLOTS),
        apply=_redraw,
    )

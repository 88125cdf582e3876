"""Bring something from one block to another: an operator's additions, or a whole method.

With equal chances first the one, then the other is tried. Additions are found by their
marks and inserted at the same slots, so the receiver keeps what it has. A method comes
with the `__init__` statements its `self` attributes need and with the methods it calls
that the receiver lacks; methods that nobody calls and attributes that nobody reads
afterwards are dropped, so that no parameter is left without a gradient. Text in, text
out: nothing is executed.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from evolution.proposers.operators.catalogue import catalogue, clash
from evolution.proposers.operators.parameter_cap import within_parameter_cap
from evolution.proposers.operators.simplification import present_operators
from evolution.proposers.operators.slots import SLOTS
from frameworks.program import ProgramError, normalise_block

if TYPE_CHECKING:
    from evolution.proposers.operators.block_editor import BlockEditor


def recombine(block_a: str, block_b: str, framework_name: str, rng: random.Random) -> str | None:
    """`block_a` with something of `block_b`; None when nothing fits.

    Args:
        block_a: the receiver.
        block_b: the giver.
        framework_name: the framework of both.
        rng: decides what is brought over.

    Returns:
        A block that parses, differs from both in meaning and stays within the parameter cap, or None.
    """
    if framework_name not in SLOTS:
        return None
    try:
        known = {normalise_block(block_a), normalise_block(block_b)}
    except ProgramError:
        return None
    ways = [_bring_additions, _bring_method]
    rng.shuffle(ways)
    for way in ways:
        for child in way(block_a, block_b, framework_name, rng):
            try:
                if normalise_block(child) in known or clash(present_operators(child, framework_name)):
                    continue
                if within_parameter_cap(child, framework_name):
                    return child
            except ProgramError:
                continue
    return None


def _bring_additions(block_a: str, block_b: str, framework_name: str, rng: random.Random) -> list[str]:
    """`block_a` with a random part of the operators that only `block_b` has."""
    from evolution.proposers.operators.block_editor import BlockEditor
    from evolution.proposers.operators.marked_edits import extract_edit
    from evolution.proposers.operators.statements import ForeignBlockError

    slots = SLOTS[framework_name]
    try:
        present = set(BlockEditor(block_a, slots).markers())
        giver = BlockEditor(block_b, slots)
    except ForeignBlockError:
        return []
    offered = [name for name in giver.markers() if name in catalogue() and name not in present]
    rng.shuffle(offered)
    children: list[str] = []
    code = block_a
    wanted = rng.randint(1, len(offered)) if offered else 0
    for name in offered:
        try:
            receiver = BlockEditor(code, slots)
            receiver.apply(name, extract_edit(giver, name))
            grown = receiver.code
        except ForeignBlockError:
            continue
        if within_parameter_cap(grown, framework_name):
            code = grown
            children.insert(0, code)
        if len(children) == wanted:
            break
    return children


def _bring_method(block_a: str, block_b: str, framework_name: str, rng: random.Random) -> list[str]:
    """`block_a` with one method of `block_b` that differs, one child a method, in random order."""
    from evolution.proposers.operators.block_editor import BlockEditor
    from evolution.proposers.operators.statements import ForeignBlockError

    slots = SLOTS[framework_name]
    try:
        giver = BlockEditor(block_b, slots)
        methods = [name for name in dict.fromkeys(giver.method_names()) if name != "__init__"]
    except ForeignBlockError:
        return []
    rng.shuffle(methods)
    children: list[str] = []
    for name in methods:
        try:
            receiver = BlockEditor(block_a, slots)
            if _same(receiver, giver, name):
                continue
            _transplant(receiver, giver, name, set())
            receiver.drop_uncalled()
            _drop_unread(receiver)
            children.append(receiver.code)
        except ForeignBlockError:
            continue
    return children


def _text(editor: BlockEditor, name: str) -> str:
    import libcst as cst

    return normalise_block(cst.Module(body=[editor.method(name)]).code)


def _same(receiver: BlockEditor, giver: BlockEditor, name: str) -> bool:
    return name in receiver.method_names() and _text(receiver, name) == _text(giver, name)


def _transplant(receiver: BlockEditor, giver: BlockEditor, name: str, seen: set[str]) -> None:
    """Bring method `name`, what it calls and the receiver lacks, and the attributes it needs."""
    from evolution.proposers.operators.statements import ForeignBlockError, assigned_attributes, self_attributes

    seen.add(name)
    method = giver.method(name)
    if name in receiver.method_names() and receiver.parameters(name) != giver.parameters(name):
        raise ForeignBlockError(f"{name} has other parameters here")
    receiver.set_method(method)
    needed = self_attributes([method])
    for called in sorted(needed & set(giver.method_names()) - seen):
        if called not in receiver.method_names():
            _transplant(receiver, giver, called, seen)
    own = receiver.body("__init__")
    brought = []
    for statement in giver.body("__init__"):
        assigned = assigned_attributes([statement])
        if not assigned & needed:
            continue
        taken = [kept for kept in own if assigned & assigned_attributes([kept])]
        if any(not kept.deep_equals(statement) for kept in taken):
            others = [m for m in receiver.method_names() if m not in ("__init__", name)]
            if any(assigned & self_attributes([receiver.method(other)]) for other in others):
                raise ForeignBlockError(f"self.{sorted(assigned)[0]} means something else here")
            own = [kept for kept in own if kept not in taken]
            taken = []
        if not taken:
            brought.append(statement)
    receiver.set_body("__init__", [*own, *brought])


def _drop_unread(receiver: BlockEditor) -> None:
    """Remove `self.name = ...` from `__init__` where no method reads the name."""
    from evolution.proposers.operators.statements import assigned_attributes, self_attributes

    methods = [receiver.method(name) for name in receiver.method_names() if name != "__init__"]
    read = self_attributes(methods) | {"n_heads", "head_dim", "d_model"}
    body = receiver.body("__init__")
    for statement in body:
        read |= self_attributes([statement]) - assigned_attributes([statement])
    kept = [s for s in body if not assigned_attributes([s]) or assigned_attributes([s]) & read]
    receiver.set_body("__init__", kept)

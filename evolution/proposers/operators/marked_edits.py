"""What an operator has added to a block, found by its marks: read it back, or take it out.

`remove_edit` is the inverse of `BlockEditor.apply`: where nothing else has touched the
statements, the block gets the identity it had before. `extract_edit` reads an operator's
statements back as an `Edit`, which can then be applied to another block.
"""

from __future__ import annotations

import libcst as cst

from evolution.proposers.operators.block_editor import BlockEditor
from evolution.proposers.operators.edit import Edit
from evolution.proposers.operators.statements import (
    ForeignBlockError,
    assigned_attributes,
    assigned_names,
    expression_code,
    marker_of,
    names_in,
    parse_statements,
    source_of,
)


def _is_return(statement: cst.BaseStatement) -> bool:
    return isinstance(statement, cst.SimpleStatementLine) and isinstance(statement.body[0], cst.Return)


def _is_kernel(statement: cst.BaseStatement, coefficient: str) -> bool:
    """Whether it assigns the coefficients from something else than the coefficients."""
    if not isinstance(statement, cst.SimpleStatementLine) or not isinstance(statement.body[0], cst.Assign):
        return False
    return coefficient in assigned_names([statement]) and coefficient not in names_in([statement.body[0].value])


def remove_edit(editor: BlockEditor, name: str) -> None:
    """Take out every statement marked `name`; the shipped statement returns where one was replaced.

    Raises:
        ForeignBlockError: nothing is marked so, or something else still builds on it.
    """
    slots = editor.slots
    if name not in editor.markers():
        raise ForeignBlockError(f"nothing is marked {name}")
    removed_attributes: set[str] = set()
    for method in editor.method_names():
        try:
            body = editor.body(method)
        except ForeignBlockError:
            continue
        marked = [statement for statement in body if marker_of(statement) == name]
        if not marked:
            continue
        kept: list[cst.BaseStatement] = []
        restored = False
        for statement in body:
            if marker_of(statement) != name:
                kept.append(statement)
            elif _is_return(statement):
                plain = slots.plain_return if method == slots.normaliser else "return None"
                kept += parse_statements(plain or "return None")
            elif method == slots.coefficients and not restored and _is_kernel(statement, slots.coefficient):
                kept += parse_statements(slots.softmax)
                restored = True
        removed_attributes |= assigned_attributes(marked)
        gone = assigned_names(marked) - assigned_names(kept) - set(editor.parameters(method))
        if gone & names_in(kept):
            raise ForeignBlockError(f"{method} still uses {sorted(gone & names_in(kept))[0]}")
        editor.set_body(method, kept)
    still = editor.attributes() & removed_attributes
    if still:
        raise ForeignBlockError(f"self.{sorted(still)[0]} is still used")


def _row_sum(statement: cst.BaseStatement) -> str:
    """The denominator in `return n`, `return a / n` or `a = a / n`."""
    if not isinstance(statement, cst.SimpleStatementLine):
        raise ForeignBlockError("no denominator")
    small = statement.body[0]
    value = small.value if isinstance(small, cst.Return | cst.Assign) else None
    if value is None:
        raise ForeignBlockError("no denominator")
    if isinstance(value, cst.BinaryOperation) and isinstance(value.operator, cst.Divide):
        value = value.right
    return expression_code(value.with_changes(lpar=[], rpar=[]))


def _plain(statements: list[cst.BaseStatement]) -> str:
    bare = [
        s.with_changes(trailing_whitespace=cst.TrailingWhitespace(), leading_lines=[])
        if isinstance(s, cst.SimpleStatementLine)
        else s
        for s in statements
    ]
    return source_of(bare).strip()


def extract_edit(editor: BlockEditor, name: str) -> Edit:
    """The statements marked `name` as an `Edit` in canonical names.

    Raises:
        ForeignBlockError: nothing is marked so, or a marked statement stands outside the slots.
    """
    slots = editor.slots
    found: dict[str, str] = {}
    canonical = {slots.coefficient: "w"}
    for method in editor.method_names():
        try:
            body = editor.body(method)
        except ForeignBlockError:
            continue
        marked = [statement for statement in body if marker_of(statement) == name]
        if not marked:
            continue
        if method == "__init__":
            found["init"] = _plain(marked)
        elif method == slots.optional:
            found["optional"] = _plain(marked)
        elif method in (slots.coefficients, slots.normaliser):
            _extract_coefficients(editor, name, marked, method, found)
        elif method in (slots.signals, slots.scores, slots.output):
            slot = {slots.signals: "signals", slots.scores: "scores", slots.output: "output"}[method]
            found[slot] = _plain(marked)
        else:
            raise ForeignBlockError(f"{method} is no slot")
    for slot in ("masked", "kernel", "row_sum", "coefficients"):
        if slot in found:
            found[slot] = source_of(parse_statements(found[slot], rename=canonical)).strip()
    edit = Edit(**found)
    if edit.is_empty:
        raise ForeignBlockError(f"nothing is marked {name}")
    return edit


def _extract_coefficients(
    editor: BlockEditor, name: str, marked: list[cst.BaseStatement], method: str, found: dict[str, str]
) -> None:
    slots = editor.slots
    returns = [statement for statement in marked if _is_return(statement)]
    if returns:
        found["row_sum"] = _row_sum(returns[0])
    if method != slots.coefficients:
        return
    others = [statement for statement in marked if not _is_return(statement)]
    kernels = [i for i, statement in enumerate(others) if _is_kernel(statement, slots.coefficient)]
    if kernels:
        found["kernel"] = _plain(others[: kernels[0] + 1])
        if slots.normaliser is None and len(others) > kernels[0] + 1:
            found["row_sum"] = _row_sum(others[kernels[0] + 1])
        elif slots.normaliser is None:
            found["row_sum"] = f"torch.ones_like({slots.coefficient}[..., :1])"
        return
    body = editor.body(method)
    start = editor.kernel_start()
    masked = [statement for i, statement in enumerate(body) if i < start and statement in others]
    after = [statement for statement in others if statement not in masked]
    if masked:
        found["masked"] = _plain(masked)
    if after:
        found["coefficients"] = _plain(after)

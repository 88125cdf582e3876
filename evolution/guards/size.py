"""How much text and how large constants a block may hold.

Runs first: every later guard costs time in proportion to the text. The limits leave room for a block thirty times
the shipped one (about 60 lines); a proposer that exceeds them writes padding or tables, not a mechanism.
"""

from __future__ import annotations

import ast

from evolution.guards.places import approval, places, refusal, unparsable
from evolution.guards.report import GuardReport
from frameworks.program import ProgramError
from frameworks.registry import Framework

NAME = "size"
MAX_BYTES = 20_000
MAX_LINES = 600
MAX_LINE = 1_000
MAX_NODES = 12_000
MAX_DEPTH = 60
MAX_INTEGER = 2**63 - 1
MAX_REPEAT = 100_000


class _TooLargeError(Exception):
    """A constant expression passes the limit; the message says how."""


def check(block: str, framework: Framework) -> GuardReport:
    """Text length first, then the tree: nodes, nesting, constants and constant arithmetic."""
    size = len(block.encode("utf-8", errors="replace")) if len(block) <= MAX_BYTES else len(block)
    if size > MAX_BYTES:
        return refusal(NAME, None, f"the block has {size:,} bytes", f"at most {MAX_BYTES:,} are allowed")
    lines = block.splitlines()
    if len(lines) > MAX_LINES:
        return refusal(NAME, None, f"the block has {len(lines)} lines", f"at most {MAX_LINES} are allowed")
    longest = max(map(len, lines), default=0)
    if longest > MAX_LINE:
        return refusal(NAME, None, f"a line has {longest:,} characters", f"at most {MAX_LINE:,} are allowed")
    try:
        return _check_tree(block)
    except ProgramError as error:
        return unparsable(NAME, error)


def _check_tree(block: str) -> GuardReport:
    found = list(places(block))
    if len(found) > MAX_NODES:
        return refusal(NAME, None, f"the block has {len(found):,} syntax nodes", f"at most {MAX_NODES:,} are allowed")
    depth: dict[int, int] = {}
    for place in found:
        level = depth[id(place.node)] = depth.get(id(place.parent), 0) + 1
        if level > MAX_DEPTH and isinstance(place.node, ast.expr | ast.stmt):
            return refusal(NAME, place.node, f"code nests {level} levels deep", f"at most {MAX_DEPTH} are allowed")
    for place in found:
        if isinstance(place.node, ast.expr) and not isinstance(place.parent, ast.BinOp | ast.UnaryOp):
            try:
                _value(place.node)
            except _TooLargeError as error:
                return refusal(NAME, place.node, str(error), f"constants stay below {MAX_INTEGER} (2**63)")
    return approval(NAME)


def _value(node: ast.expr) -> int | float | None:
    """The value of constant arithmetic, None for anything else; the depth limit bounds the recursion."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, int) and not isinstance(node.value, bool) and abs(node.value) > MAX_INTEGER:
            raise _TooLargeError(f"the integer constant has {node.value.bit_length()} bits")
        return node.value if isinstance(node.value, int | float) else None
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) and value is not None else value
    if not isinstance(node, ast.BinOp):
        return None
    left, right = _value(node.left), _value(node.right)
    if isinstance(node.op, ast.Mult):
        for text, count in ((node.left, right), (node.right, left)):
            sequence = isinstance(text, ast.List | ast.Tuple | ast.JoinedStr) or (
                isinstance(text, ast.Constant) and isinstance(text.value, str | bytes)
            )
            if sequence and count is not None and abs(count) > MAX_REPEAT:
                raise _TooLargeError(f"a sequence is repeated {count} times (at most {MAX_REPEAT:,})")
    return None if left is None or right is None else _combined(node.op, left, right)


def _combined(operator: ast.operator, left: float, right: float) -> int | float | None:
    whole = isinstance(left, int) and isinstance(right, int)
    try:
        if isinstance(operator, ast.Pow):
            if abs(left) > 1 and right > 0 and right * max(abs(left).__ceil__().bit_length() - 1, 1) > 1_100:
                raise _TooLargeError(f"constant power {left} ** {right}")
            value = left**right if left or right >= 0 else None
            value = value if isinstance(value, int | float) else None
        elif isinstance(operator, ast.LShift) and whole:
            if right > 64:
                raise _TooLargeError(f"constant shift {left} << {right}")
            value = int(left) << int(right) if right >= 0 else None
        elif isinstance(operator, ast.Mult):
            value = left * right
        elif isinstance(operator, ast.Add):
            value = left + right
        elif isinstance(operator, ast.Sub):
            value = left - right
        else:
            value = None  # division, remainder and bit operations cannot grow past their operands
            if whole and isinstance(operator, ast.FloorDiv) and right:
                value = left // right
    except (OverflowError, ValueError):
        return None
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise _TooLargeError(f"constant arithmetic reaches {value.bit_length()} bits")
    return value

"""Every yes-or-no a block computes, made visible and, on demand, turned round.

A leak can stand behind a condition that no probe happens to meet: one length, one batch size, one number of heads, a
threshold on a weight. Here the block's tree is rewritten so that comparisons, conditions and calls that give a bool
go through `Decisions.decide`, which notes what each came to and can force one of them to the other side.

What is left alone: comparisons with None (the usual form of an optional term), names and attributes that hold a plain
bool (a flag has no value but the one its own decision gave it), and tensors with an entry a position, which are masks.
"""

from __future__ import annotations

import ast
import types
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from frameworks.program import load_module, split_source

_HOOK = "_evoscale_decide"
_CONDITION, _VALUE = "condition", "value"
_MOST_TURNS = 300  # so that a loop that a forced decision would keep going ends


class Decisions:
    """The decisions of one block, numbered in the order of its text.

    Attributes:
        lines: number of a decision -> its line in the block.
        seen: number -> the truth values it came to since `forget`.
        length: tokens in the probe; a tensor with a dimension of this size is a mask.
    """

    def __init__(self) -> None:
        self.lines: dict[int, int] = {}
        self.seen: dict[int, set[bool]] = defaultdict(set)
        self.length = 0
        self._loops: set[int] = set()
        self._forced: tuple[int, bool] | None = None
        self._turns = 0

    def add(self, node: ast.AST, first_line: int, *, loop: bool) -> int:
        """Number one more decision."""
        number = len(self.lines)
        self.lines[number] = int(getattr(node, "lineno", first_line)) - first_line
        if loop:
            self._loops.add(number)
        return number

    @contextmanager
    def forced(self, number: int, value: bool) -> Iterator[None]:
        """Within the block decision `number` comes to `value`; one in a loop's condition once, so that it ends."""
        self._forced, self._turns = (number, value), 0
        try:
            yield
        finally:
            self._forced = None

    def decide(self, number: int, form: str, value: object) -> object:
        """Note a decision and give it back, forced where that was asked for."""
        truth = self._truth(form, value)
        if truth is None:
            return value
        self.seen[number] |= truth
        most = 1 if number in self._loops else _MOST_TURNS
        if self._forced is None or self._forced[0] != number or self._turns >= most:
            return value
        self._turns += 1
        wanted = self._forced[1]
        return torch.full_like(value, wanted) if isinstance(value, Tensor) and form == _VALUE else wanted

    def _truth(self, form: str, value: object) -> set[bool] | None:
        """What a value says: one truth, both for a mixed tensor, None for what is no decision."""
        if isinstance(value, Tensor):
            if value.dtype != torch.bool and form == _VALUE:
                return None
            if self.length in value.shape or value.numel() == 0:
                return None
            return {bool(value.any()), bool(value.all())}
        if value is None or (form == _VALUE and not isinstance(value, bool)):
            return None
        return {bool(value)}


class _Rewriter(ast.NodeTransformer):
    """Wraps decisions inside functions; outside them a block has constants only."""

    def __init__(self, decisions: Decisions, first_line: int, last_line: int) -> None:
        self._decisions = decisions
        self._first, self._last = first_line, last_line
        self._in_loop_test = False

    def _wrapped(self, node: ast.expr, form: str) -> ast.expr:
        number = self._decisions.add(node, self._first, loop=self._in_loop_test)
        call = ast.Call(
            func=ast.Name(id=_HOOK, ctx=ast.Load()),
            args=[ast.Constant(value=number), ast.Constant(value=form), node],
            keywords=[],
        )
        return ast.fix_missing_locations(ast.copy_location(call, node))

    def _condition(self, node: ast.expr) -> ast.expr:
        """A condition; a comparison is wrapped for itself."""
        compared = isinstance(node, ast.Compare)
        within: ast.expr = self.visit(node)
        return within if compared else self._wrapped(within, _CONDITION)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if self._first < node.lineno <= self._last:
            node.body = [self.visit(row) for row in node.body]
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        node.test = _flag(node.test) or self._condition(node.test)
        node.body = [self.visit(row) for row in node.body]
        node.orelse = [self.visit(row) for row in node.orelse]
        return node

    def visit_While(self, node: ast.While) -> ast.AST:
        self._in_loop_test = True
        node.test = self._condition(node.test)
        self._in_loop_test = False
        node.body = [self.visit(row) for row in node.body]
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        node.test = _flag(node.test) or self._condition(node.test)
        node.body, node.orelse = self.visit(node.body), self.visit(node.orelse)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        return node if _is_none_test(node) else self._wrapped(node, _VALUE)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return self._wrapped(node, _VALUE) if isinstance(node.op, ast.Not) else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        is_super = isinstance(node.func, ast.Name) and node.func.id == "super"
        return node if is_super else self._wrapped(node, _VALUE)


def _is_none_test(node: ast.expr) -> bool:
    return isinstance(node, ast.Compare) and any(
        isinstance(row, ast.Constant) and row.value is None for row in [node.left, *node.comparators]
    )


def _flag(node: ast.expr) -> ast.expr | None:
    """An attribute of an object is a setting: it was decided where it was assigned."""
    return node if isinstance(node, ast.Attribute) else None


def instrumented_module(source: str, name: str) -> tuple[types.ModuleType, Decisions]:
    """The program with its block's decisions made visible; executes it, as `load_module` does.

    Args:
        source: the whole program file.
        name: of the module.
    """
    head, block, _ = split_source(source)
    first = head.count("\n")
    decisions = Decisions()
    tree = _Rewriter(decisions, first, first + block.count("\n") + 1).visit(ast.parse(source))
    module = load_module(ast.unparse(ast.fix_missing_locations(tree)), name)
    setattr(module, _HOOK, decisions.decide)
    return module, decisions

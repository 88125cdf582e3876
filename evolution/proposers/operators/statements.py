# ruff: noqa: N802  (libcst's visitors are named after its node types)
"""Statements as libcst nodes: parsing with marks, and what they read and assign."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import libcst as cst

_MARKER = re.compile(r"^# ([a-z][a-z0-9_]*)$")


class ForeignBlockError(ValueError):
    """The block is not written the way an edit expects; the message says what is missing."""


class _Rename(cst.CSTTransformer):
    def __init__(self, names: Mapping[str, str]) -> None:
        super().__init__()
        self._names = names

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.Name:
        return updated_node.with_changes(value=self._names.get(original_node.value, original_node.value))

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.Attribute:
        return updated_node.with_changes(attr=original_node.attr)

    def leave_Arg(self, original_node: cst.Arg, updated_node: cst.Arg) -> cst.Arg:
        return updated_node.with_changes(keyword=original_node.keyword)


class _Names(cst.CSTVisitor):
    """Variables read or written, and attributes of `self` read or written."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.assigned: set[str] = set()
        self.attributes: set[str] = set()
        self.assigned_attributes: set[str] = set()
        self.returns = 0
        self._depth = 0

    def visit_Attribute(self, node: cst.Attribute) -> bool:
        if isinstance(node.value, cst.Name) and node.value.value == "self":
            self.attributes.add(node.attr.value)
        node.value.visit(self)
        return False

    def visit_Arg(self, node: cst.Arg) -> bool:
        node.value.visit(self)
        return False

    def visit_Name(self, node: cst.Name) -> None:
        self.names.add(node.value)

    def _target(self, node: cst.BaseExpression) -> None:
        if isinstance(node, cst.Name):
            self.assigned.add(node.value)
        elif isinstance(node, cst.Tuple | cst.List):
            for element in node.elements:
                self._target(element.value)
        elif isinstance(node, cst.Attribute) and isinstance(node.value, cst.Name) and node.value.value == "self":
            self.assigned_attributes.add(node.attr.value)

    def visit_AssignTarget(self, node: cst.AssignTarget) -> None:
        self._target(node.target)

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        self._target(node.target)

    def visit_AugAssign(self, node: cst.AugAssign) -> None:
        self._target(node.target)

    def visit_NamedExpr(self, node: cst.NamedExpr) -> None:
        self._target(node.target)

    def visit_For(self, node: cst.For) -> None:
        self._target(node.target)

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self._depth += 1

    def leave_FunctionDef(self, original_node: cst.FunctionDef) -> None:
        self._depth -= 1

    def visit_Return(self, node: cst.Return) -> None:
        self.returns += self._depth == 0


@lru_cache(maxsize=2048)
def _look(node: cst.CSTNode) -> _Names:
    """What one node holds; nodes never change, so each is visited once (visiting is most of an edit's cost)."""
    seen = _Names()
    node.visit(seen)
    return seen


def names_in(nodes: Iterable[cst.CSTNode]) -> set[str]:
    """Variables that occur, without attribute and keyword names."""
    return {name for node in nodes for name in _look(node).names}


def assigned_names(nodes: Iterable[cst.CSTNode]) -> set[str]:
    """Variables that are assigned."""
    return {name for node in nodes for name in _look(node).assigned}


def self_attributes(nodes: Iterable[cst.CSTNode]) -> set[str]:
    """Attributes of `self` that occur."""
    return {name for node in nodes for name in _look(node).attributes}


def assigned_attributes(nodes: Iterable[cst.CSTNode]) -> set[str]:
    """Attributes of `self` that are assigned."""
    return {name for node in nodes for name in _look(node).assigned_attributes}


def count_returns(nodes: Iterable[cst.CSTNode]) -> int:
    """Return statements, without those of nested functions."""
    return sum(_look(node).returns for node in nodes)


def final_return(method: str, body: Sequence[cst.BaseStatement]) -> cst.Return:
    """The method's only return, its last statement.

    Raises:
        ForeignBlockError: it returns elsewhere, more than once or never.
    """
    last = body[-1] if body else None
    if isinstance(last, cst.SimpleStatementLine) and len(last.body) == 1 and count_returns(body) == 1:
        statement = last.body[0]
        if isinstance(statement, cst.Return):
            return statement
    raise ForeignBlockError(f"{method} does not have its one return as its last statement")


def source_of(statements: Iterable[cst.BaseStatement]) -> str:
    """The statements' code, without indentation."""
    return cst.Module(body=list(statements)).code  # type: ignore[arg-type]


def marker_of(statement: cst.BaseStatement) -> str | None:
    """The operator named in the statement's trailing comment, if it is one name."""
    if not isinstance(statement, cst.SimpleStatementLine):
        return None
    comment = statement.trailing_whitespace.comment
    found = _MARKER.match(comment.value) if comment else None
    return found.group(1) if found else None


def parse_statements(
    code: str, *, rename: Mapping[str, str] | None = None, marker: str | None = None
) -> list[cst.BaseStatement]:
    """Parse simple statements, rename variables, and mark each with a trailing comment."""
    return list(_parse_statements(code, tuple(sorted((rename or {}).items())), marker))


@lru_cache(maxsize=1024)
def _parse_statements(code: str, rename: tuple[tuple[str, str], ...], marker: str | None) -> list[cst.BaseStatement]:
    module = cst.parse_module(code)
    if any(old != new for old, new in rename):
        module = cst.ensure_type(module.visit(_Rename(dict(rename))), cst.Module)
    statements: list[cst.BaseStatement] = list(module.body)
    if marker is None:
        return statements
    trailing = cst.TrailingWhitespace(whitespace=cst.SimpleWhitespace("  "), comment=cst.Comment(f"# {marker}"))
    return [
        statement.with_changes(trailing_whitespace=trailing)
        if isinstance(statement, cst.SimpleStatementLine)
        else statement
        for statement in statements
    ]

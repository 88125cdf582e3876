# ruff: noqa: N802  (libcst's visitors are named after its node types)
"""Statements as libcst nodes: parsing with marks, and what they read and assign."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import libcst as cst

_EMPTY = cst.Module(body=[])
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


@dataclass(frozen=True)
class _Facts:
    """What a piece of code holds: variables, attributes of `self`, returns outside nested functions."""

    names: frozenset[str]
    assigned: frozenset[str]
    attributes: frozenset[str]
    assigned_attributes: frozenset[str]
    returns: int


@lru_cache(maxsize=4096)
def _look(node: cst.CSTNode) -> _Facts:
    """Facts of one node, which never changes; read from its `ast`, six times faster than a libcst visitor."""
    names, assigned, attributes, assigned_attributes = set(), set(), set(), set()
    returns = 0
    stack: list[tuple[ast.AST, bool]] = [(ast.parse(_EMPTY.code_for_node(node)), False)]
    while stack:
        inner, nested = stack.pop()
        if isinstance(inner, ast.Name):
            names.add(inner.id)
            if isinstance(inner.ctx, ast.Store):
                assigned.add(inner.id)
        elif isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name) and inner.value.id == "self":
            attributes.add(inner.attr)
            if isinstance(inner.ctx, ast.Store):
                assigned_attributes.add(inner.attr)
        elif isinstance(inner, ast.Return):
            returns += not nested
        elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(inner.name)
            nested = True
        stack += [(child, nested) for child in ast.iter_child_nodes(inner)]
    return _Facts(frozenset(names), frozenset(assigned), frozenset(attributes), frozenset(assigned_attributes), returns)


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
    return "".join(_EMPTY.code_for_node(statement) for statement in statements)


def expression_code(node: cst.CSTNode) -> str:
    """The code of an expression."""
    return _EMPTY.code_for_node(node)


@lru_cache(maxsize=64)
def parse_module(code: str) -> cst.Module:
    """The code's tree; trees never change, so a block that is edited again and again is parsed once.

    Raises:
        ParserSyntaxError: it does not parse.
    """
    return cst.parse_module(code)


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

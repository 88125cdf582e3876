"""A block's syntax tree, node by node, each with where it stands.

Nothing here recurses, so that no text can exhaust the stack of the process that judges it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from evolution.guards.report import GuardReport
from frameworks.program import ProgramError, parse_block

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True)
class Place:
    """A node and its surroundings.

    Attributes:
        node: the node.
        parent: the node it stands in.
        klass: the innermost class around it.
        method: the outermost function around it, the method when it stands in a class.
        nested: whether it stands in a function inside that function.
    """

    node: ast.AST
    parent: ast.AST
    klass: ast.ClassDef | None
    method: FunctionNode | None
    nested: bool

    @property
    def in_init(self) -> bool:
        """Whether it stands directly in the `__init__` of a class."""
        return self.klass is not None and getattr(self.method, "name", "") == "__init__" and not self.nested

    @property
    def self_name(self) -> str | None:
        """What the surrounding method calls its object; None outside methods and in static ones."""
        if self.klass is None or not isinstance(self.method, ast.FunctionDef):
            return None
        if any(
            isinstance(row, ast.Name) and row.id in ("staticmethod", "classmethod")
            for row in self.method.decorator_list
        ):
            return None
        parameters = [*self.method.args.posonlyargs, *self.method.args.args]
        return parameters[0].arg if parameters else None


@lru_cache(maxsize=16)
def _places(block: str) -> tuple[Place, ...]:
    tree = parse_block(block)
    found: list[Place] = []
    waiting: list[Place] = [Place(node, tree, None, None, False) for node in reversed(tree.body)]
    while waiting:
        place = waiting.pop()
        found.append(place)
        node, klass, method, nested = place.node, place.klass, place.method, place.nested
        if isinstance(node, ast.ClassDef):
            klass = node
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            method, nested = (node, False) if method is None else (method, True)
        children = list(ast.iter_child_nodes(node))
        waiting.extend(Place(child, node, klass, method, nested) for child in reversed(children))
    return tuple(found)


def places(block: str) -> Iterator[Place]:
    """Every node of the block below the module, in source order.

    Raises:
        ProgramError: the block does not parse.
    """
    return iter(_places(block))


def line_of(node: ast.AST) -> int:
    """The line of the block, from 1, on which a node starts."""
    return int(getattr(node, "lineno", 1))


def shown(text: str, limit: int = 60) -> str:
    """Text from a candidate, quoted and cut for a message."""
    cut = text if len(text) <= limit else text[:limit] + "..."
    return repr(cut)


def refusal(guard: str, node: ast.AST | None, seen: str, allowed: str) -> GuardReport:
    """A failed report in the one form every static guard uses: line, what was seen, what is allowed."""
    line = None if node is None else line_of(node)
    where = "" if line is None else f"line {line} of the block: "
    evidence = {} if line is None else {"line": line}
    return GuardReport(guard=guard, passed=False, reason=f"{where}{seen}; {allowed}", evidence=evidence)


def approval(guard: str) -> GuardReport:
    """The report of a static guard that found nothing."""
    return GuardReport(guard=guard, passed=True, reason="nothing found")


def unparsable(guard: str, error: ProgramError) -> GuardReport:
    """The report of a guard that cannot read the block at all."""
    return GuardReport(guard=guard, passed=False, reason=str(error)[:400])

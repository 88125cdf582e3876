"""Which names a block may read and bind.

A name that is read must be bound in the block, offered by the shell (torch, nn, F, math, Tensor) or be one of a
few builtins. Builtins outside that list are refused however they are used, so that a name bound in one function
cannot cover for the builtin in another.
"""

from __future__ import annotations

import ast
import builtins
import difflib
from collections.abc import Iterator

from evolution.guards.imports import module_aliases
from evolution.guards.places import Place, approval, places, refusal, shown, unparsable
from evolution.guards.report import GuardReport
from evolution.guards.vocabulary import BUILTINS, SHELL_MODULES, SHELL_NAMES
from frameworks.program import ProgramError
from frameworks.registry import Framework

NAME = "names"
_REFUSED_BUILTINS = frozenset(dir(builtins)) - BUILTINS - {"Ellipsis", "NotImplemented"}


def check(block: str, framework: Framework) -> GuardReport:
    """Every name that is read or bound, once for binding rules and once for reading rules."""
    try:
        found = list(places(block))
        aliases = module_aliases(block)
    except ProgramError as error:
        return unparsable(NAME, error)
    taken = SHELL_NAMES | {framework.standard_class, framework.evolvable_class, "AttentionShell", "annotations"}
    bound: set[str] = set()
    for place in found:
        for name in _bound_names(place.node):
            report = _binding_refusal(place, name, aliases, taken)
            if report is not None:
                return report
            bound.add(name)
    known = bound | BUILTINS | SHELL_NAMES | set(aliases)
    for place in found:
        if isinstance(place.node, ast.Name):
            report = _reading_refusal(place, place.node, known, aliases)
            if report is not None:
                return report
    return approval(NAME)


def _bound_names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        for row in node.names:
            yield row.asname or row.name.split(".")[0]


def _binding_refusal(place: Place, name: str, aliases: dict[str, str], taken: frozenset[str]) -> GuardReport | None:
    node = place.node
    if isinstance(node, ast.Import | ast.ImportFrom):
        if name in SHELL_MODULES or name in SHELL_NAMES:
            return None  # the imports guard has seen that it is bound to what the shell means by it
    elif name in aliases:
        return refusal(NAME, node, f"{shown(name)} is bound anew", f"it is the module {aliases[name]} in this file")
    if name.startswith("__") and not (name == "__init__" and isinstance(node, ast.FunctionDef)):
        return refusal(NAME, node, f"the name {shown(name)}", "names that start with two underscores are refused")
    if name in taken:
        return refusal(NAME, node, f"{shown(name)} is bound anew", "it belongs to the shell; choose another name")
    if name == "super":
        return refusal(NAME, node, "super is bound anew", "choose another name")
    if name in _REFUSED_BUILTINS:
        return refusal(NAME, node, f"the name {shown(name)}", "it is a refused builtin; choose another name")
    first_parameter = place.parent if isinstance(node, ast.arg) and isinstance(place.parent, ast.arguments) else None
    if name == "self" and not (
        first_parameter is not None
        and place.klass is not None
        and not place.nested
        and isinstance(place.method, ast.FunctionDef)
        and [*first_parameter.posonlyargs, *first_parameter.args][:1] == [node]
    ):
        return refusal(NAME, node, "self is bound anew", "self is the first parameter of a method and nothing else")
    return None


def _reading_refusal(place: Place, node: ast.Name, known: set[str], aliases: dict[str, str]) -> GuardReport | None:
    name = node.id
    if name in _REFUSED_BUILTINS:
        return refusal(
            NAME, node, f"the name {shown(name)}", f"builtins a block may use: {', '.join(sorted(BUILTINS))}"
        )
    if name not in known:
        near = difflib.get_close_matches(name[:40], [*known], n=3)
        hint = f"; near: {', '.join(near)}" if near else ""
        return refusal(
            NAME,
            node,
            f"the name {shown(name)} is not defined in the block",
            f"offered: {', '.join(SHELL_MODULES)}, Tensor and what the block defines{hint}",
        )
    if name in aliases and not (isinstance(place.parent, ast.Attribute) and place.parent.value is node):
        return refusal(
            NAME,
            node,
            f"the module {name} is used as a value",
            f"use it only as {name}.<function> from the allowed list",
        )
    if name == "super" and not (isinstance(place.parent, ast.Call) and place.parent.func is node):
        return refusal(
            NAME, node, "super is used as a value", "only super().__init__() and super().forward(...) are allowed"
        )
    return None

"""The block defines the class that the shell instantiates, with the constructor and `forward` it calls."""

from __future__ import annotations

import ast

from evolution.guards.places import approval, refusal, unparsable
from evolution.guards.report import GuardReport
from frameworks.program import ProgramError, parse_block
from frameworks.registry import Framework

NAME = "interface"
CONSTRUCTOR = ("self", "d_model", "n_heads", "head_dim")
FORWARD = ("self", "x", "q", "k", "v")


def check(block: str, framework: Framework) -> GuardReport:
    """Find the class at the top level of the block and compare two signatures."""
    try:
        tree = parse_block(block)
    except ProgramError as error:
        return unparsable(NAME, error)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    count = sum(isinstance(node, ast.ClassDef) and node.name == framework.block_class for node in tree.body)
    if count != 1:
        names = ", ".join(list(classes)[:8]) or "none"
        return refusal(
            NAME,
            None,
            f"the block defines class {framework.block_class} {count} times (classes: {names[:200]})",
            f"it must define `class {framework.block_class}(nn.Module)` once",
        )
    klass = classes[framework.block_class]
    for method, wanted in (("__init__", CONSTRUCTOR), ("forward", FORWARD)):
        found = _method(klass, method, classes)
        if found is None:
            return refusal(
                NAME,
                klass,
                f"class {klass.name} has no {method}",
                f"it must define `def {method}({', '.join(wanted)})`",
            )
        if not _fits(found, wanted):
            seen = ", ".join(row.arg for row in [*found.args.posonlyargs, *found.args.args])[:200]
            return refusal(
                NAME,
                found,
                f"{klass.name}.{method} takes ({seen})",
                f"it must be `def {method}({', '.join(wanted)})`, further parameters need defaults",
            )
    return approval(NAME)


def _method(klass: ast.ClassDef, name: str, classes: dict[str, ast.ClassDef]) -> ast.FunctionDef | None:
    """The method in the class or, by name, in one of its bases inside the block."""
    seen: set[str] = set()
    waiting = [klass]
    while waiting:
        here = waiting.pop(0)
        if here.name in seen:
            continue
        seen.add(here.name)
        for node in reversed(here.body):
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return node
        waiting += [classes[base.id] for base in here.bases if isinstance(base, ast.Name) and base.id in classes]
    return None


def _fits(function: ast.FunctionDef, wanted: tuple[str, ...]) -> bool:
    arguments = function.args
    names = [row.arg for row in arguments.args]
    extra = len(names) - len(wanted)
    return (
        not arguments.posonlyargs
        and not function.decorator_list
        and tuple(names[: len(wanted)]) == wanted
        and len(arguments.defaults) >= extra
        and all(default is not None for default in arguments.kw_defaults)
    )

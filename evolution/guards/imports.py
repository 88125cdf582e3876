"""A block imports torch, math, einops and a few typing names, at its top, and nothing else."""

from __future__ import annotations

import ast
import difflib

from evolution.guards.places import Place, approval, places, refusal, shown, unparsable
from evolution.guards.report import GuardReport
from evolution.guards.vocabulary import INIT_ONLY, MODULES, SHELL_MODULES, SHELL_NAMES
from frameworks.program import ProgramError
from frameworks.registry import Framework

NAME = "imports"
_ALLOWED = f"allowed modules: {', '.join(MODULES)}"


def check(block: str, framework: Framework) -> GuardReport:
    """Every import statement against the module lists."""
    try:
        for place in places(block):
            if isinstance(place.node, ast.Import | ast.ImportFrom):
                found = _refusal(place, place.node)
                if found is not None:
                    return found
    except ProgramError as error:
        return unparsable(NAME, error)
    return approval(NAME)


def module_aliases(block: str) -> dict[str, str]:
    """Name in the block -> dotted module, for the shell's imports and the block's own.

    Raises:
        ProgramError: the block does not parse.
    """
    aliases = dict(SHELL_MODULES)
    for place in places(block):
        if isinstance(place.node, ast.Import):
            for row in place.node.names:
                aliases[row.asname or row.name.split(".")[0]] = row.name if row.asname else row.name.split(".")[0]
        elif isinstance(place.node, ast.ImportFrom):
            for row in place.node.names:
                dotted = f"{place.node.module}.{row.name}"
                if dotted in MODULES:
                    aliases[row.asname or row.name] = dotted
    return aliases


def _refusal(place: Place, node: ast.Import | ast.ImportFrom) -> GuardReport | None:
    if not isinstance(place.parent, ast.Module):
        return refusal(NAME, node, "an import inside a function or class", "imports stand at the top of the block")
    rows: list[tuple[str, str | None, str]]
    if isinstance(node, ast.Import):
        rows = [(row.name, None, row.asname or row.name.split(".")[0]) for row in node.names]
    else:
        if node.level or node.module is None:
            return refusal(NAME, node, "a relative import", _ALLOWED)
        rows = [(node.module, row.name, row.asname or row.name) for row in node.names]
    for module, name, bound in rows:
        if module not in MODULES:
            return refusal(NAME, node, f"import of {shown(module)}", _ALLOWED)
        if name is not None and name not in MODULES[module] and f"{module}.{name}" not in MODULES:
            near = difflib.get_close_matches(name[:40], MODULES[module], n=3)
            hint = f", near: {', '.join(near)}" if near else ""
            return refusal(NAME, node, f"import of {shown(name)} from {module}", f"it is not on the list{hint}")
        if name in INIT_ONLY:
            return refusal(NAME, node, f"import of {shown(name or '')}", f"write {module}.{name} where it is called")
        dotted = module if name is None else f"{module}.{name}"
        shell = SHELL_MODULES.get(bound) or ("torch.Tensor" if bound in SHELL_NAMES else None)
        if shell is not None and dotted != shell and not (name is None and module.split(".")[0] == shell):
            return refusal(NAME, node, f"{shown(bound)} bound to {dotted}", f"{bound} is {shell} in this file")
        if bound.startswith("_"):
            return refusal(
                NAME, node, f"import bound to {shown(bound)}", "a name without leading underscore is allowed"
            )
    return None

"""Which statements and expressions a block may use, and what it may assign to.

A block is imports, constants, functions and classes. State is made in `__init__` and read afterwards: an attribute is
assigned on `self` in `__init__` only, nothing else is patched, and nothing mutable lives at module or class level,
because all of these carry information from one call, layer or row to another.
"""

from __future__ import annotations

import ast

from evolution.guards.imports import module_aliases
from evolution.guards.places import Place, approval, places, refusal, shown, unparsable
from evolution.guards.report import GuardReport
from evolution.guards.vocabulary import INTERNAL_ATTRIBUTES, MODULE_INTERFACE
from frameworks.program import ProgramError
from frameworks.registry import Framework

NAME = "statements"
_REFUSED: dict[type[ast.AST], tuple[str, str]] = {
    ast.AsyncFunctionDef: ("an async function", "use ordinary functions"),
    ast.AsyncFor: ("async for", "use ordinary loops"),
    ast.AsyncWith: ("async with", "use ordinary statements"),
    ast.Await: ("await", "use ordinary calls"),
    ast.Yield: ("yield", "return a value; generator expressions are allowed"),
    ast.YieldFrom: ("yield from", "return a value; generator expressions are allowed"),
    ast.Global: ("global", "pass values as arguments"),
    ast.Nonlocal: ("nonlocal", "pass values as arguments"),
    ast.Try: ("try", "write code that does not fail; shapes and sizes are known"),
    ast.TryStar: ("try", "write code that does not fail; shapes and sizes are known"),
    ast.Match: ("match", "use if"),
    ast.Set: ("a set", "its order differs between processes; use a tuple or a dict"),
    ast.SetComp: ("a set", "its order differs between processes; use a tuple or a dict"),
}
_NOT_TO_OVERRIDE = MODULE_INTERFACE | INTERNAL_ATTRIBUTES
_SURROUNDINGS = ("device", "dtype")
_DECORATORS = "staticmethod, classmethod, property and torch.no_grad() are allowed"
_CONSTANT = (ast.Constant, ast.UnaryOp, ast.BinOp, ast.Tuple, ast.operator, ast.unaryop, ast.expr_context)


def check(block: str, framework: Framework) -> GuardReport:
    """Every node against the rules for its kind."""
    try:
        found = list(places(block))
        aliases = module_aliases(block)
    except ProgramError as error:
        return unparsable(NAME, error)
    bound = _precision_names(found)
    classes = {place.node.name for place in found if isinstance(place.node, ast.ClassDef)}
    for place in found:
        report = _refusal(place, aliases, classes, bound)
        if report is not None:
            return report
    return approval(NAME)


def _refusal(place: Place, aliases: dict[str, str], classes: set[str], bound: frozenset[str]) -> GuardReport | None:
    node = place.node
    if type(node) in _REFUSED:
        seen, allowed = _REFUSED[type(node)]
        return refusal(NAME, node, seen, allowed)
    if isinstance(node, ast.stmt) and isinstance(place.parent, ast.Module | ast.ClassDef):
        report = _outer_statement(place, node, aliases)
        if report is not None:
            return report
    if isinstance(node, ast.ClassDef):
        return _class(place, node, aliases, classes)
    if isinstance(node, ast.FunctionDef | ast.Lambda):
        return _function(place, node, aliases)
    if isinstance(node, ast.With):
        return _with(node, aliases)
    if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
        return _target(place, node, aliases, classes)
    if isinstance(node, ast.Call):
        return _call(place, node, aliases)
    if isinstance(node, ast.Compare | ast.JoinedStr):
        return _surroundings_test(node, bound)
    return None


def _outer_statement(place: Place, node: ast.stmt, aliases: dict[str, str]) -> GuardReport | None:
    where = "at the top of the block" if isinstance(place.parent, ast.Module) else "in a class body"
    if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.Pass):
        return None
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return None
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        taken = [row.id for row in targets if isinstance(row, ast.Name) and row.id in _NOT_TO_OVERRIDE | {"forward"}]
        if taken and isinstance(place.parent, ast.ClassDef):
            return refusal(NAME, node, f"class attribute {shown(taken[0])}", "it belongs to nn.Module; choose another")
        if all(isinstance(target, ast.Name) for target in targets) and (
            node.value is None or _is_constant(node.value, aliases)
        ):
            return None
        return refusal(NAME, node, f"an assignment {where} that is not NAME = constant", "compute it in __init__")
    return refusal(
        NAME, node, f"{type(node).__name__} {where}", "imports, constants, functions and classes are allowed there"
    )


def _is_constant(value: ast.expr, aliases: dict[str, str]) -> bool:
    """Numbers, text, tuples and arithmetic of them, and members of math."""
    waiting: list[ast.AST] = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Call) and not node.keywords:
            waiting += [node.func, *node.args]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if aliases.get(node.value.id) != "math":
                return False
        elif isinstance(node, _CONSTANT):
            waiting += ast.iter_child_nodes(node)
        else:
            return False
    return True


def _class(place: Place, node: ast.ClassDef, aliases: dict[str, str], classes: set[str]) -> GuardReport | None:
    if not isinstance(place.parent, ast.Module):
        return refusal(NAME, node, f"class {shown(node.name)} inside another scope", "define classes at the top")
    if node.keywords or node.decorator_list:
        return refusal(NAME, node, f"class {shown(node.name)} has keywords or decorators", "plain bases are allowed")
    for base in node.bases:
        known = isinstance(base, ast.Name) and base.id in classes and base.id != node.name
        path = _dotted(base, aliases)
        if not known and not path.startswith("torch.nn.") and path != "torch.nn.Module":
            return refusal(
                NAME, base, f"class {shown(node.name)} has another base", "nn.Module, nn layers or own classes"
            )
    return None


def _function(place: Place, node: ast.FunctionDef | ast.Lambda, aliases: dict[str, str]) -> GuardReport | None:
    for default in [*node.args.defaults, *(row for row in node.args.kw_defaults if row is not None)]:
        if not _is_constant(default, aliases):
            return refusal(
                NAME, default, "a default value that is not a constant", "it would be shared between calls; use None"
            )
    if isinstance(node, ast.Lambda):
        return None
    for decorator in node.decorator_list:
        plain = isinstance(decorator, ast.Name) and decorator.id in ("staticmethod", "classmethod", "property")
        no_grad = isinstance(decorator, ast.Call) and _dotted(decorator.func, aliases) == "torch.no_grad"
        if not plain and not (no_grad and isinstance(decorator, ast.Call) and not decorator.args):
            return refusal(NAME, decorator, "this decorator", _DECORATORS)
    if node.name.startswith("__") and not (node.name == "__init__" and isinstance(place.parent, ast.ClassDef)):
        return refusal(
            NAME, node, f"function {shown(node.name)}", "of the double-underscore names only __init__ is allowed"
        )
    if isinstance(place.parent, ast.ClassDef) and node.name in _NOT_TO_OVERRIDE:
        return refusal(NAME, node, f"method {shown(node.name)}", "it belongs to nn.Module; choose another name")
    return None


def _with(node: ast.With, aliases: dict[str, str]) -> GuardReport | None:
    for item in node.items:
        call = item.context_expr
        if not (isinstance(call, ast.Call) and _dotted(call.func, aliases) == "torch.no_grad") or item.optional_vars:
            return refusal(NAME, node, "with", "only `with torch.no_grad():` is allowed")
    return None


def _target(
    place: Place, node: ast.Attribute | ast.Subscript, aliases: dict[str, str], classes: set[str]
) -> GuardReport | None:
    if isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Name) and node.value.id == place.self_name and place.in_init:
            return None
        seen = f"assignment to attribute {shown(node.attr)}"
        return refusal(
            NAME, node, seen, "only self.<name> = ... directly in __init__ is allowed; state may not change later"
        )
    root: ast.expr = node
    through: list[ast.expr] = []
    while isinstance(root, ast.Attribute | ast.Subscript | ast.Call):
        through.append(root)
        root = root.func if isinstance(root, ast.Call) else root.value
    if not isinstance(root, ast.Name) or root.id in aliases or root.id in classes:
        return refusal(
            NAME, node, "assignment into something that is not a local variable", "assign into local tensors"
        )
    if root.id == place.self_name and not place.in_init:
        return refusal(
            NAME, node, "assignment into an attribute of self", "state may not change after __init__; copy first"
        )
    return None


def _call(place: Place, node: ast.Call, aliases: dict[str, str]) -> GuardReport | None:
    if _dotted(node.func, aliases) == "torch.Tensor" or (isinstance(node.func, ast.Name) and node.func.id == "Tensor"):
        return refusal(NAME, node, "a call of torch.Tensor", "use torch.tensor, zeros, ones or full")
    for keyword in node.keywords:
        if keyword.arg == "out":
            return refusal(NAME, node, "the argument out=", "use the returned tensor")
    method = node.func
    if (
        isinstance(method, ast.Attribute)
        and method.attr.endswith("_")
        and not method.attr.startswith("_")
        and not place.in_init
    ):
        root: ast.expr = method.value
        while isinstance(root, ast.Attribute | ast.Subscript):
            root = root.value
        if isinstance(root, ast.Name) and root.id == place.self_name and place.self_name is not None:
            return refusal(
                NAME,
                node,
                f"in-place {shown(method.attr)} on an attribute of self",
                "state may not change after __init__",
            )
    return None


def _precision_names(found: list[Place]) -> frozenset[str]:
    """Names that are bound to some tensor's .device or .dtype."""
    return frozenset(
        target.id
        for place in found
        if isinstance(place.node, ast.Assign)
        and isinstance(place.node.value, ast.Attribute)
        and place.node.value.attr in _SURROUNDINGS
        for target in place.node.targets
        if isinstance(target, ast.Name)
    )


def _surroundings_test(node: ast.Compare | ast.JoinedStr, bound: frozenset[str]) -> GuardReport | None:
    waiting: list[ast.AST] = [node]
    while waiting:
        part = waiting.pop()
        seen = part.attr if isinstance(part, ast.Attribute) else part.id if isinstance(part, ast.Name) else ""
        if (isinstance(part, ast.Attribute) and seen in _SURROUNDINGS) or (
            isinstance(part, ast.Name) and seen in bound
        ):
            allowed = "a block must do the same on every device and in every precision; only pass it on, as in"
            return refusal(
                NAME, node, f"a test of .{seen}", f"{allowed} torch.zeros(..., device=x.device, dtype=x.dtype)"
            )
        if isinstance(part, ast.keyword) and part.arg in _SURROUNDINGS:
            continue
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr in ("to", "finfo"):
            waiting.append(part.func)
            continue
        waiting += ast.iter_child_nodes(part)
    return None


def _dotted(node: ast.expr, aliases: dict[str, str]) -> str:
    """torch.nn.Module for nn.Module, "" for anything that is not a path from a module."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in aliases:
        return ""
    return ".".join([aliases[node.id], *reversed(names)])

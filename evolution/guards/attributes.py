"""Which attributes a block may reach.

`torch.<name>` and the other modules have lists of their own. Any other attribute must be a known tensor or module
attribute or one that the block itself defines: what the object is cannot be told from the text, so the name decides.
Underscore names are refused but for a block's own ones on `self`; double underscores but for `super().__init__`.
"""

from __future__ import annotations

import ast
import difflib

from evolution.guards.imports import module_aliases
from evolution.guards.places import Place, approval, places, refusal, shown, unparsable
from evolution.guards.report import GuardReport
from evolution.guards.vocabulary import ATTRIBUTES, INIT_ONLY, INTERNAL_ATTRIBUTES, MODULE_INTERFACE, MODULES, REFUSED
from frameworks.program import ProgramError
from frameworks.registry import Framework

NAME = "attributes"
_REGISTERING = frozenset({"register_buffer", "register_parameter", "add_module", "register_module"})


def check(block: str, framework: Framework) -> GuardReport:
    """Every attribute, outermost first, so that a chain such as torch.nn.functional.pad is read once."""
    try:
        found = list(places(block))
        aliases = module_aliases(block)
    except ProgramError as error:
        return unparsable(NAME, error)
    own = own_attributes(found)
    inner: set[int] = set()
    for place in found:
        node = place.node
        if not isinstance(node, ast.Attribute) or id(node) in inner:
            continue
        chain = _chain(node)
        inner.update(map(id, chain))
        report = _chain_refusal(place, chain, aliases, own)
        if report is not None:
            return report
    return approval(NAME)


def own_attributes(found: list[Place]) -> frozenset[str]:
    """Attributes the block defines: methods, class constants, self.<name> = ..., and registered names."""
    names: set[str] = set()
    for place in found:
        node = place.node
        if isinstance(node, ast.FunctionDef) and isinstance(place.parent, ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and place.klass and place.method is None:
            names.add(node.id)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _REGISTERING:
            first = node.args[0] if node.args else next((row.value for row in node.keywords if row.arg == "name"), None)
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                names.add(first.value)
    return frozenset(name for name in names if name not in REFUSED and name not in INTERNAL_ATTRIBUTES)


def _chain(node: ast.Attribute) -> list[ast.Attribute]:
    """The attributes of a.b.c from the innermost out: [a.b, a.b.c]."""
    links = [node]
    while isinstance(links[-1].value, ast.Attribute):
        links.append(links[-1].value)
    return links[::-1]


def _chain_refusal(
    place: Place, chain: list[ast.Attribute], aliases: dict[str, str], own: frozenset[str]
) -> GuardReport | None:
    root = chain[0].value
    module = aliases.get(root.id) if isinstance(root, ast.Name) else None
    rest = chain
    while module is not None:
        if not rest:
            return refusal(NAME, chain[-1], f"the module {module} is used as a value", "name a function inside it")
        link, rest = rest[0], rest[1:]
        if f"{module}.{link.attr}" in MODULES:
            module = f"{module}.{link.attr}"
            continue
        if link.attr not in MODULES[module]:
            return _unlisted(link, f"{module}.{link.attr}", MODULES[module])
        if link.attr in INIT_ONLY and not (place.in_init and _is_called(place)):
            return refusal(NAME, link, f"{module}.{link.attr} outside __init__", "use zeros, ones or full there")
        break
    for link in rest:
        report = _attribute_refusal(place, link, own)
        if report is not None:
            return report
    return None


def _attribute_refusal(place: Place, node: ast.Attribute, own: frozenset[str]) -> GuardReport | None:
    name = node.attr
    if name.startswith("__"):
        if name == "__init__" and place.in_init and _is_super_call(node.value):
            return None
        return refusal(
            NAME, node, f"the attribute {shown(name)}", "of these only super().__init__() in __init__ is allowed"
        )
    if name.startswith("_"):
        on_self = isinstance(node.value, ast.Name) and node.value.id == place.self_name
        if on_self and name in own:
            return None
        return refusal(
            NAME,
            node,
            f"the attribute {shown(name)}",
            "underscore names are allowed only on self and if the block defines them",
        )
    if name in REFUSED:
        return refusal(NAME, node, f"the attribute {shown(name)}", REFUSED[name])
    if name in MODULE_INTERFACE and isinstance(node.ctx, ast.Store):
        return refusal(NAME, node, f"self.{name} is replaced", "it belongs to nn.Module; choose another name")
    if name in INIT_ONLY and not (place.in_init and _is_called(place)):
        return refusal(
            NAME, node, f".{name} outside __init__", "a block makes its state and its noise in __init__ only"
        )
    if name in ATTRIBUTES or name in own or name in INIT_ONLY:
        return None
    return _unlisted(node, f"the attribute {shown(name)}", ATTRIBUTES | own)


def _is_called(place: Place) -> bool:
    return isinstance(place.parent, ast.Call) and place.parent.func is place.node


def _is_super_call(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"


def _unlisted(node: ast.Attribute, seen: str, allowed: frozenset[str]) -> GuardReport:
    if node.attr in REFUSED:
        return refusal(NAME, node, seen[:90], REFUSED[node.attr])
    near = difflib.get_close_matches(node.attr[:40], allowed, n=3)
    hint = f"; near: {', '.join(near)}" if near else "; tensor methods, torch functions and the block's own names are"
    return refusal(NAME, node, seen[:90], f"it is not on the list of allowed names{hint}")

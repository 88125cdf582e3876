"""Parameters a block adds, read from its `__init__` without running it.

The promotion gate allows 1 % more parameters than the reference. The catalogue keeps to
that at the sizes of the demo ladder, so that a proposal is not spent on a model that could
never be promoted. Only sizes that can be read are counted (`nn.Parameter` of a plain
constructor, `nn.Linear`): for anything else the parity guard, which builds the model, decides.
"""

from __future__ import annotations

import ast

from evolution.proposers.operators.slots import SLOTS

SHAPES = ((32, 2), (48, 3), (80, 5))
"""(d_model, n_heads) of the demo ladder; head size 16."""

_CONSTRUCTORS = {"zeros", "ones", "full", "randn", "rand", "empty", "eye"}


def parameter_cap(d_model: int) -> int:
    """Most parameters a block may add at this width: 1 % of one reference layer, 12 C^2 weights."""
    return 12 * d_model**2 // 100


def _integer(node: ast.AST, names: dict[str, int]) -> int | None:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return names.get(node.attr)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.FloorDiv):
        left, right = _integer(node.left, names), _integer(node.right, names)
        if left is None or right is None:
            return None
        if isinstance(node.op, ast.FloorDiv):
            return left // right if right else None
        return (
            left + right
            if isinstance(node.op, ast.Add)
            else left - right
            if isinstance(node.op, ast.Sub)
            else left * right
        )
    return None


def _called(node: ast.AST) -> tuple[str, list[ast.expr], dict[str | None, ast.expr]] | None:
    if not isinstance(node, ast.Call):
        return None
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name, node.args, {keyword.arg: keyword.value for keyword in node.keywords}


def _tensor_size(node: ast.AST, names: dict[str, int]) -> int | None:
    if isinstance(node, ast.BinOp):  # such as 0.02 * torch.randn(...): the larger side, as far as it can be read
        sides = [_tensor_size(node.left, names), _tensor_size(node.right, names)]
        return max((size for size in sides if size is not None), default=None)
    call = _called(node)
    if call is None or call[0] not in _CONSTRUCTORS or not call[1]:
        return None
    name, arguments, _ = call
    if isinstance(arguments[0], ast.Tuple | ast.List):
        sizes = [_integer(size, names) for size in arguments[0].elts]
    else:
        sizes = [_integer(size, names) for size in arguments]
        if name == "eye":
            sizes *= 2 if len(sizes) == 1 else 1
    total = 1
    for size in sizes:
        if size is None:
            return None
        total *= size
    return total


def _parameters(node: ast.AST, names: dict[str, int]) -> int:
    call = _called(node)
    if call is None:
        return 0
    name, arguments, keywords = call
    if name == "Parameter" and arguments:
        return _tensor_size(arguments[0], names) or 0
    if name == "Linear" and len(arguments) >= 2:
        rows, columns = _integer(arguments[0], names), _integer(arguments[1], names)
        bias = keywords.get("bias")
        biased = not (isinstance(bias, ast.Constant) and bias.value is False)
        return 0 if rows is None or columns is None else columns * (rows + biased)
    return 0


def _count(tree: ast.Module, framework_name: str, d_model: int, n_heads: int) -> int:
    names: dict[str, int] = {"d_model": d_model, "n_heads": n_heads, "head_dim": d_model // n_heads}
    total = 0
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == SLOTS[framework_name].block_class:
            inits = [m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == "__init__"]
            total += sum(_parameters(inner, names) for init in inits for inner in ast.walk(init))
    return total


def count_parameters(block: str, framework_name: str, d_model: int, n_heads: int) -> int:
    """Parameters the block class's `__init__` creates at this size, as far as they can be read.

    Raises:
        SyntaxError: the block does not parse.
    """
    return _count(ast.parse(block), framework_name, d_model, n_heads)


def within_parameter_cap(block: str, framework_name: str) -> bool:
    """Whether the block's readable parameters stay within the cap at every size of `SHAPES`.

    Raises:
        SyntaxError: the block does not parse.
    """
    tree = ast.parse(block)
    return all(_count(tree, framework_name, d_model, n_heads) <= parameter_cap(d_model) for d_model, n_heads in SHAPES)

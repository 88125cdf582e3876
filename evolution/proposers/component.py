"""One component of a block, changed by one line: what a small model can be asked for.

A component is a tensor on its way through the mechanism (queries, keys, values, scores,
output); a line gives it a new value in a small language:

    keys: k = k + gain * prev(k)

`gain` is a learned number a head that starts at 0, `prev` the previous token's row. The
line becomes plain PyTorch in the parent's block, through the same slots the operator
catalogue edits, so the two can be combined. The grammar (GBNF) of a request generates
nothing else, so a reply that was not cut short always parses.
"""

from __future__ import annotations

import ast
import random
import re
from dataclasses import dataclass

from evolution.proposers.reply import ReplyError
from frameworks.registry import Framework

MARK = "llm"
"""Statements of a line are marked `llm_<component>_<number>`, for people and for later edits."""
MAX_LINE = 300
MAX_DEPTH = 12
_PREVIOUS = "F.pad({0}, (0, 0, 1, 0))[..., :-1, :]"

FUNCTIONS: dict[str, str] = {
    "tanh": "torch.tanh({0})",
    "sigmoid": "torch.sigmoid({0})",
    "silu": "F.silu({0})",
    "gelu": "F.gelu({0})",
    "relu": "F.relu({0})",
    "softplus": "F.softplus({0})",
    "square": "torch.square({0})",
    "abs": "torch.abs({0})",
    "norm": "F.normalize({0}, dim=-1)",
    "prev": _PREVIOUS,
}
"""Function of the language -> PyTorch."""
_ELEMENTWISE = ("tanh", "sigmoid", "silu", "gelu", "relu", "softplus", "square", "abs")
_DISTANCE = (
    "{name} = torch.arange(s.shape[-1], device=s.device)\n"
    "{name} = torch.log1p(({name}.unsqueeze(-1) - {name}).clamp(min=0).to(s.dtype))\n"
)


@dataclass(frozen=True, kw_only=True)
class Component:
    """One tensor that a line may change.

    Attributes:
        name: what requests and replies call it.
        variable: its name in the line.
        slot: the field of `Edit` its statements go to.
        shape: of the tensor.
        says: what it is, in a few words.
        atoms: values a line may combine it with.
        functions: what may be applied.
    """

    name: str
    variable: str
    slot: str
    shape: str
    says: str
    atoms: tuple[str, ...]
    functions: tuple[str, ...]


COMPONENTS: dict[str, Component] = {
    component.name: component
    for component in (
        Component(
            name="queries", variable="q", slot="signals", shape="(B, H, T, D)", says="what each token looks for",
            atoms=("q", "k", "v", "prev(q)", "prev(k)"), functions=(*_ELEMENTWISE, "norm"),
        ),
        Component(
            name="keys", variable="k", slot="signals", shape="(B, H, T, D)", says="what each token offers",
            atoms=("k", "q", "v", "prev(k)", "prev(v)", "prev(prev(k))"), functions=(*_ELEMENTWISE, "norm"),
        ),
        Component(
            name="values", variable="v", slot="signals", shape="(B, H, T, D)", says="what each token passes on",
            atoms=("v", "k", "q", "prev(v)", "prev(k)", "prev(prev(v))"), functions=(*_ELEMENTWISE, "norm"),
        ),
        Component(
            name="scores", variable="s", slot="scores", shape="(B, H, T, T)",
            says="how well each query fits each earlier key; softmax follows",
            atoms=("s", "distance"), functions=_ELEMENTWISE,
        ),
        Component(
            name="output", variable="y", slot="output", shape="(B, H, T, D)", says="what leaves the attention",
            atoms=("y", "v", "prev(v)", "prev(y)"), functions=(*_ELEMENTWISE, "norm"),
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a small model is asked.

    Attributes:
        component: what the line is about.
        replaces: the mark of the earlier line it replaces; None: it adds one.
        form: key of `FORMS`.
    """

    component: Component
    replaces: str | None
    form: str

    @property
    def head(self) -> str:
        """How the reply begins."""
        instead = f" instead of {self.replaces}" if self.replaces else ""
        return f"{self.component.name}{instead}: {self.component.variable} = "


FORMS: dict[str, tuple[str, int]] = {
    "add": ('"{v} + gain * " term', 5),
    "subtract": ('"{v} - gain * " term', 2),
    "scale": ('"{v} * (1 + gain * " gate ")"', 3),
    "gate": ('"{v} * " gate', 1),
    "cap": ('number " * tanh({v} / " number ")"', 1),
    "mix": ('"{v} + 0." digit " * " term', 2),
}
"""How a line may change its component: the rule, and its weight in the draw. A small model would repeat one."""


def draw_request(block: str, rng: random.Random) -> Request:
    """A component and a form at random; an earlier line of the component is replaced in half the draws."""
    component = rng.choice(list(COMPONENTS.values()))
    present = re.findall(rf"# ({MARK}_{component.name}_\d+)$", block, re.MULTILINE)
    replaces = present[-1] if present and rng.random() < 0.5 else None
    form = rng.choices(list(FORMS), weights=[weight for _, weight in FORMS.values()])[0]
    return Request(component=component, replaces=replaces, form=form)


def _alternatives(words: tuple[str, ...]) -> str:
    return " | ".join(f'"{word}"' for word in words)


def grammar(request: Request) -> str:
    """The GBNF grammar of a reply: every text it generates is read by `component_block`."""
    component = request.component
    rules = [
        f'root ::= "{request.head}" form',
        "form ::= " + FORMS[request.form][0].format(v=component.variable),
        'term ::= atom | function "(" atom ")" | atom " * " gate | function "(" atom " - " atom ")"',
        'gate ::= squash "(" atom ")" | squash "(" number " * " atom ")" | squash "(" atom " + " atom ")"',
        f"atom ::= {_alternatives(component.atoms)}",
        f"function ::= {_alternatives(component.functions)}",
        'squash ::= "sigmoid" | "tanh" | "softplus"',
        'number ::= digit | digit ".5" | "10" | "20"',
        "digit ::= [1-9]",
    ]
    return "\n".join(rules) + "\n"


_HEAD = re.compile(r"^\s*([a-z]+)(?: instead of ([a-z][a-z0-9_]*))?: ([a-z]) = (\S.*?)\s*$")


def component_block(reply: str | None, framework: Framework, parent: str) -> str:
    """The parent's block with the reply's line in it.

    Args:
        reply: one line of the language, see the module.
        framework: whose block it is.
        parent: the parent's block.

    Raises:
        ReplyError: there is no such line, it uses what the component does not offer, or the parent cannot take it.
    """
    from evolution.proposers.operators.block_editor import BlockEditor
    from evolution.proposers.operators.edit import Edit
    from evolution.proposers.operators.marked_edits import remove_edit
    from evolution.proposers.operators.slots import SLOTS
    from evolution.proposers.operators.statements import ForeignBlockError

    component, replaced, expression = _read_line(reply)
    if framework.name not in SLOTS:
        raise ReplyError("malformed_edit", f"framework {framework.name} has no components; use the block prompt")
    try:
        editor = BlockEditor(parent, SLOTS[framework.name])
        if replaced is not None:
            remove_edit(editor, replaced)
        numbers = [int(n) for n in re.findall(rf"\b{MARK}_(?:gain_|distance_|[a-z]+_)(\d+)\b", parent)]
        number = max(numbers, default=0) + 1
        code, used = _translate(expression, component, number)
        before = _DISTANCE.format(name=f"{MARK}_distance_{number}") if "distance" in used else ""
        gain = f"self.{MARK}_gain_{number} = nn.Parameter(torch.zeros(n_heads, 1, 1))"
        edit = Edit(
            init=gain if "gain" in used else "",
            **{component.slot: f"{before}{component.variable} = {code}"},
        )
        editor.apply(f"{MARK}_{component.name}_{number}", edit)
    except ForeignBlockError as error:
        raise ReplyError("no_match", f"the parent has no place for a line of {component.name}: {error}") from None
    return editor.code.strip("\n") + "\n"


def _read_line(reply: str | None) -> tuple[Component, str | None, ast.expr]:
    text = (reply or "").strip()
    if not text:
        raise ReplyError("empty", "the reply is empty; one line such as `keys: k = k + gain * prev(k)` is expected")
    if len(text) > MAX_LINE:
        raise ReplyError("too_long", f"the reply has {len(text):,} characters; one line of at most {MAX_LINE} is read")
    match = _HEAD.match(text)
    if match is None or "\n" in text:
        raise ReplyError("prose", "the reply is no single line such as `keys: k = k + gain * prev(k)`")
    name, replaced, variable, code = match.groups()
    component = COMPONENTS.get(name)
    if component is None:
        raise ReplyError("malformed_edit", f"there is no component {name!r}; there are {', '.join(COMPONENTS)}")
    if variable != component.variable:
        raise ReplyError("malformed_edit", f"{name} are called {component.variable}, not {variable}")
    try:
        return component, replaced, ast.parse(code, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ReplyError("syntax", f"`{code[:80]}` is no expression") from None


_OPERATORS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


def _translate(expression: ast.expr, component: Component, number: int) -> tuple[str, set[str]]:
    """PyTorch for an expression of the language, and the special names it uses."""
    variables = {atom for atom in component.atoms if atom.isidentifier()}
    functions = {*component.functions, *(("prev",) if "prev" in " ".join(component.atoms) else ())}
    used: set[str] = set()

    def name_of(name: str) -> str:
        if name == "gain":
            used.add(name)
            return f"self.{MARK}_gain_{number}"
        if name == "distance" and name in variables:
            used.add(name)
            return f"{MARK}_distance_{number}"
        if name in variables:
            return name
        raise _not_offered(name, component)

    def walk(node: ast.expr, depth: int) -> str:
        if depth > MAX_DEPTH:
            raise ReplyError("malformed_edit", f"the expression nests deeper than {MAX_DEPTH} levels")
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            left, right = walk(node.left, depth + 1), walk(node.right, depth + 1)
            return f"({left} {_OPERATORS[type(node.op)]} {right})"
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return f"(-{walk(node.operand, depth + 1)})"
        if isinstance(node, ast.Constant) and type(node.value) in (int, float) and abs(float(str(node.value))) <= 1000:
            return repr(node.value)
        if isinstance(node, ast.Name):
            return name_of(node.id)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1 and not node.keywords:
            if node.func.id not in functions:
                raise _not_offered(node.func.id, component)
            return FUNCTIONS[node.func.id].format(walk(node.args[0], depth + 1))
        raise ReplyError("malformed_edit", f"`{ast.unparse(node)[:60]}` is not part of the language of components")

    code = walk(expression, 0)
    if ast.unparse(expression) == component.variable:
        raise ReplyError("no_change", f"the line leaves {component.name} as they are")
    return (code[1:-1] if isinstance(expression, ast.BinOp) else code), used


def _not_offered(name: str, component: Component) -> ReplyError:
    offered = [*component.atoms, *component.functions, "gain"]
    return ReplyError("malformed_edit", f"{component.name} cannot use {name!r}; they can use {', '.join(offered)}")

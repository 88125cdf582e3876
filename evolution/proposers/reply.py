"""From a model's reply to a block, or a typed reason why there is none.

Accepted: one fenced block, a fenced whole file (its block is taken, its shell must be the
framework's own), bare code without prose, and SEARCH/REPLACE edits of the parent's block.
Of several fences the last one that defines the block class counts, since replies often quote
the parent first. What the code does is not judged here: that is the guards' work.
"""

from __future__ import annotations

import ast
import re
import textwrap
from typing import Literal

from evolution.proposers.fences import Fence, find_fences
from frameworks.program import ProgramError, normalise_block, parse_block, split_source
from frameworks.registry import Framework

MAX_REPLY_CHARACTERS = 400_000

Kind = Literal[
    "empty",
    "too_long",
    "prose",
    "truncated",
    "no_class",
    "syntax",
    "abbreviated",
    "outside_block",
    "malformed_edit",
    "no_match",
    "no_change",
]

_THINKING = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_THINKING_OPEN = re.compile(r"<think(?:ing)?>(?!.*</think(?:ing)?>)", re.DOTALL)
_EDIT = re.compile(r"^[ \t]*(<<<<<<< SEARCH|=======|>>>>>>> REPLACE)[ \t]*$")
_UNIFIED = re.compile(r"^(--- \S.*\n\+\+\+ \S|@@ -\d+(,\d+)? \+\d+(,\d+)? @@)", re.MULTILINE)
_LEFT_OUT = re.compile(
    r"^\s*#.*("
    r"\b(rest|remainder|remaining|other|others|everything else)\b.*\b(unchanged|same|as before|as above|identical)\b"
    r"|\b(unchanged|same as (before|above|the parent)|as before|existing (code|methods?))\b.*\.\.\."
    r"|\.\.\.\s*\(?(rest|existing|unchanged|same|remaining|other)\b)",
    re.IGNORECASE | re.MULTILINE,
)


class ReplyError(ValueError):
    """A reply holds no usable block.

    Attributes:
        kind: the reason's type, for records.
        args: one sentence: what was found and what is expected.
    """

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind: Kind = kind


def extract_block(reply: str | None, framework: Framework, parent: str | None = None) -> str:
    """The proposed block.

    Args:
        reply: the message's content; None where an endpoint sent null.
        framework: whose block is expected.
        parent: the parent's block, needed for SEARCH/REPLACE edits.

    Returns:
        A block that parses and defines the framework's block class, ending in a newline.

    Raises:
        ReplyError: there is none; `kind` says which of the reasons it is.
    """
    if reply is None:
        raise ReplyError("empty", "the reply has no content (null); send a rationale and one fenced block")
    if len(reply) > MAX_REPLY_CHARACTERS:
        raise ReplyError(
            "too_long", f"the reply has {len(reply):,} characters; at most {MAX_REPLY_CHARACTERS:,} are read"
        )
    text = _THINKING.sub("", reply.replace("\r\n", "\n").replace("\r", "\n"))
    if _THINKING_OPEN.search(text):
        raise ReplyError("truncated", "the reply ends inside its reasoning; allow more tokens or think shorter")
    if not text.strip():
        raise ReplyError("empty", "the reply is empty; send a rationale and one fenced block")
    if any(_EDIT.match(line) and "=" not in line for line in text.splitlines()):
        block = _apply_edits(_edits(text), framework, parent)
    else:
        block = _from_code(_find_code(text, framework), framework)
    return _checked(block, framework)


def _defines_class(code: str, framework: Framework) -> bool:
    return re.search(rf"^[ \t]*class\s+{framework.block_class}\b", code, re.MULTILINE) is not None


def _find_code(text: str, framework: Framework) -> str:
    fences = find_fences(text)
    last = fences[-1] if fences else None
    complete = [fence for fence in fences if fence.closed and _defines_class(fence.code, framework)]
    if last is not None and not last.closed and (_defines_class(last.code, framework) or not complete):
        raise ReplyError(
            "truncated",
            f"the fence opened on line {last.line} of the reply is never closed; send the complete block",
        )
    if complete:
        return textwrap.dedent(_preferred(complete).code)
    if _UNIFIED.search(text):
        raise ReplyError(
            "malformed_edit",
            "the reply is a unified diff; send the complete block in one fence, or SEARCH/REPLACE edits",
        )
    if fences:
        code = "".join(fence.code for fence in fences)
        found = ", ".join(dict.fromkeys(re.findall(r"^\s*(?:class|def)\s+(\w+)", code, re.MULTILINE))) or "nothing"
        raise ReplyError(
            "no_class",
            f"no fence defines class {framework.block_class} (defined: {found}); send the complete block",
        )
    if _defines_class(text, framework):
        return textwrap.dedent(text)
    raise ReplyError(
        "prose", f"the reply holds no code; send one fence with the complete class {framework.block_class}"
    )


def _preferred(fences: list[Fence]) -> Fence:
    """The last python fence, else the last."""
    python = [fence for fence in fences if fence.is_python]
    return (python or fences)[-1]


# -- whole files -----------------------------------------------------------------------------


def _bindings(node: ast.stmt) -> set[tuple[str, str]]:
    """(name, what it stands for) of an import."""
    if isinstance(node, ast.Import):
        return {(a.asname, a.name) if a.asname else (a.name.split(".")[0],) * 2 for a in node.names}
    if isinstance(node, ast.ImportFrom):
        return {(alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names}
    return set()


def _shell(framework: Framework) -> tuple[set[str], set[tuple[str, str]]]:
    """The shell's statements, normalised, and the names its imports bind."""
    head, _, tail = split_source(framework.pristine)
    statements = [*ast.parse(head).body, *ast.parse(tail).body]
    bound = {binding for node in statements for binding in _bindings(node)}
    return {_meaning(node) for node in statements}, bound


def _meaning(node: ast.stmt) -> str:
    try:
        return normalise_block(ast.unparse(node))
    except ProgramError:
        return ast.dump(node)


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _from_code(code: str, framework: Framework) -> str:
    """The block in a fence's code, which may be a whole file."""
    try:
        head, block, tail = split_source(code)
    except ProgramError as error:
        if any(re.match(r"\s*#\s*EVOLVE-BLOCK-(START|END)\s*$", line) for line in code.splitlines()):
            raise ReplyError("outside_block", f"the markers are damaged: {error}") from None
        return _without_shell(code, framework)
    shell, bound = _shell(framework)
    for part, name in ((head, "before"), (tail, "after")):
        for node in _parsed(part):
            own = _meaning(node) in shell or (_bindings(node) and _bindings(node) <= bound) or _is_docstring(node)
            if not own:
                shown = ast.unparse(node).splitlines()[0][:80]
                raise ReplyError(
                    "outside_block",
                    f"the code {name} the block is changed (`{shown}` is not the framework's own); edit only the block",
                )
    return block


def _without_shell(code: str, framework: Framework) -> str:
    """Code without markers: drop imports and classes that the shell has already."""
    shell, bound = _shell(framework)
    lines = code.splitlines(keepends=True)
    for node in reversed(_parsed(code)):
        if _meaning(node) in shell or (_bindings(node) and _bindings(node) <= bound):
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            if sum(n.lineno <= (node.end_lineno or 0) and (n.end_lineno or 0) >= first for n in _parsed(code)) == 1:
                del lines[first - 1 : node.end_lineno]
    stripped = "".join(lines).strip("\n")
    names = {node.name for node in _parsed(stripped) if isinstance(node, ast.ClassDef)}
    changed = sorted(names & {framework.standard_class, framework.evolvable_class})
    if changed:
        raise ReplyError(
            "outside_block", f"class {changed[0]} belongs to the shell and is changed; edit only the block"
        )
    return stripped


def _parsed(code: str) -> list[ast.stmt]:
    try:
        return ast.parse(code).body
    except SyntaxError as error:
        where = f" (line {error.lineno} of the code)" if error.lineno else ""
        raise ReplyError("syntax", f"the code does not parse: {error.msg}{where}") from None
    except (RecursionError, MemoryError, ValueError, OverflowError) as error:
        raise ReplyError("syntax", f"the code does not parse: {type(error).__name__}") from None


# -- SEARCH/REPLACE --------------------------------------------------------------------------


def _edits(text: str) -> list[tuple[list[str], list[str]]]:
    """(search lines, replacement lines) of each edit."""
    edits: list[tuple[list[str], list[str]]] = []
    order = ("<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE")
    state = 0
    search: list[str] = []
    replace: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        match = _EDIT.match(line)
        if match is None:
            if state:
                (search if state == 1 else replace).append(line.rstrip())
            continue
        mark = match.group(1)
        if mark == "=======" and state == 0:
            continue
        if mark != order[state]:
            raise ReplyError(
                "malformed_edit", f"line {number} of the reply reads '{mark}' where '{order[state]}' is due"
            )
        if state == 2:
            edits.append((search, replace))
            search, replace = [], []
        state = (state + 1) % 3
    if state:
        raise ReplyError("truncated", f"the reply ends inside an edit; '{order[state]}' is missing")
    return edits


def _find(lines: list[str], search: list[str]) -> list[int]:
    wanted = [line.rstrip() for line in search]
    have = [line.rstrip() for line in lines]
    return [i for i in range(len(have) - len(wanted) + 1) if have[i : i + len(wanted)] == wanted]


def _apply_edits(edits: list[tuple[list[str], list[str]]], framework: Framework, parent: str | None) -> str:
    if parent is None:
        raise ReplyError(
            "malformed_edit", "the reply holds SEARCH/REPLACE edits, but there is no parent to apply them to"
        )
    lines = parent.splitlines()
    for number, (search, replace) in enumerate(edits, start=1):
        if not any(line.strip() for line in search):
            raise ReplyError("malformed_edit", f"edit {number} searches for nothing; copy the lines to replace")
        places = _find(lines, search)
        if not places:
            head, _, tail = split_source(framework.pristine)
            if _find(head.splitlines(), search) or _find(tail.splitlines(), search):
                raise ReplyError("outside_block", f"edit {number} changes code outside the block; edit only the block")
            shown = next(line for line in search if line.strip()).strip()[:80]
            raise ReplyError("no_match", f"edit {number} searches for lines that are not in the parent (`{shown}` ...)")
        if len(places) > 1:
            raise ReplyError(
                "no_match", f"edit {number} fits {len(places)} places of the parent; search for more lines around it"
            )
        lines[places[0] : places[0] + len(search)] = replace
    block = "\n".join(lines) + "\n"
    try:
        if normalise_block(block) == normalise_block(parent):
            raise ReplyError("no_change", "the edits change nothing but comments or layout")
    except ProgramError:
        pass
    return block


def _checked(block: str, framework: Framework) -> str:
    block = block.strip("\n") + "\n"
    if _LEFT_OUT.search(block):
        line = _LEFT_OUT.search(block)
        shown = line.group(0).strip()[:80] if line else ""
        raise ReplyError("abbreviated", f"the block leaves something out (`{shown}`); send every line of it")
    try:
        tree = parse_block(block)
    except ProgramError as error:
        raise ReplyError("syntax", str(error)) from None
    if not any(isinstance(node, ast.ClassDef) and node.name == framework.block_class for node in tree.body):
        raise ReplyError(
            "no_class", f"the block does not define class {framework.block_class}; send the complete block"
        )
    return block

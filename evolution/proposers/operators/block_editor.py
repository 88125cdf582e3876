"""A block's syntax tree, open for the edits of the catalogue.

Built on libcst, so that comments and layout of everything that is not touched survive.
Each inserted statement carries the operator's name as a trailing comment: people can read
the diff, and a later edit can find, copy or remove what an operator added. A block that is
written in another style (no such method, several returns, other names) is not an error of
the program: `ForeignBlockError` says which expectation failed and operators decline.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

import libcst as cst

from evolution.proposers.operators.edit import UNNORMALISED, Edit
from evolution.proposers.operators.slots import CANONICAL, Slots
from evolution.proposers.operators.statements import (
    ForeignBlockError,
    assigned_attributes,
    assigned_names,
    count_returns,
    expression_code,
    final_return,
    marker_of,
    names_in,
    parse_module,
    parse_statements,
    self_attributes,
    source_of,
)
from frameworks.program import ProgramError, parse_block

MAX_BLOCK_CHARACTERS = 60_000
MAX_DEPTH = 80
"""Deepest syntax tree that is edited: far above what people write, far below what exhausts the stack."""


def _depth(tree: ast.AST) -> int:
    deepest = 0
    stack = [(tree, 1)]
    while stack:
        node, depth = stack.pop()
        deepest = max(deepest, depth)
        stack += [(child, depth + 1) for child in ast.iter_child_nodes(node)]
    return deepest


class BlockEditor:
    """The block class of one program.

    Args:
        block: source of the block.
        slots: the framework's slots.

    Raises:
        ForeignBlockError: it does not parse, or does not define the block class exactly once.
    """

    def __init__(self, block: str, slots: Slots) -> None:
        if len(block) > MAX_BLOCK_CHARACTERS:
            raise ForeignBlockError(f"{len(block):,} characters; at most {MAX_BLOCK_CHARACTERS:,} are edited")
        try:
            if _depth(parse_block(block)) > MAX_DEPTH:
                raise ForeignBlockError(f"the code nests deeper than {MAX_DEPTH} levels")
            self._module = parse_module(block)
        except (ProgramError, cst.ParserSyntaxError) as error:
            raise ForeignBlockError(str(error)) from None
        self.slots = slots
        self._mentioned = set(re.findall(r"\bself\.(\w+)", block))
        found = [
            i
            for i, node in enumerate(self._module.body)
            if isinstance(node, cst.ClassDef) and node.name.value == slots.block_class
        ]
        if len(found) != 1:
            raise ForeignBlockError(f"{len(found)} classes are called {slots.block_class}; exactly one is needed")
        self._index = found[0]
        node = self._module.body[self._index]
        if not isinstance(node, cst.ClassDef) or not isinstance(node.body, cst.IndentedBlock):
            raise ForeignBlockError(f"class {slots.block_class} has no indented body")
        self._class: cst.ClassDef = node
        self._members: list[cst.BaseStatement] = list(node.body.body)

    @property
    def code(self) -> str:
        """The block as it stands now."""
        body = self._class.body.with_changes(body=self._members)
        members = list(self._module.body)
        members[self._index] = self._class.with_changes(body=body)
        return self._module.with_changes(body=members).code

    # -- methods -----------------------------------------------------------------------------

    def method_names(self) -> list[str]:
        """Names of the class's methods, in order."""
        return [member.name.value for member in self._members if isinstance(member, cst.FunctionDef)]

    def method(self, name: str) -> cst.FunctionDef:
        """The method called `name`.

        Raises:
            ForeignBlockError: there is none, or more than one.
        """
        found = [m for m in self._members if isinstance(m, cst.FunctionDef) and m.name.value == name]
        if len(found) != 1:
            raise ForeignBlockError(f"{len(found)} methods are called {name}; exactly one is needed")
        return found[0]

    def body(self, name: str) -> list[cst.BaseStatement]:
        """The method's statements.

        Raises:
            ForeignBlockError: no such method, or it stands on one line.
        """
        block = self.method(name).body
        if not isinstance(block, cst.IndentedBlock):
            raise ForeignBlockError(f"method {name} stands on one line")
        return list(block.body)

    def set_body(self, name: str, body: Sequence[cst.BaseStatement]) -> None:
        """Replace the method's statements; an empty body becomes `pass`."""
        node = self.method(name)
        statements = list(body) or parse_statements("pass")
        self.set_method(node.with_changes(body=node.body.with_changes(body=statements)))

    def set_method(self, method: cst.FunctionDef) -> None:
        """Replace the method of the same name, or add it before `forward` (else at the end)."""
        for i, member in enumerate(self._members):
            if isinstance(member, cst.FunctionDef) and member.name.value == method.name.value:
                self._members[i] = method
                return
        names = [m.name.value if isinstance(m, cst.FunctionDef) else "" for m in self._members]
        self._members.insert(names.index("forward") if "forward" in names else len(names), method)

    def drop_uncalled(self) -> None:
        """Remove methods that cannot be reached from `forward`; names with a leading underscore stay."""
        reached, waiting = {"forward"}, ["forward"]
        while waiting:
            name = waiting.pop()
            for called in sorted(self_attributes([self.method(name)]) & set(self.method_names()) - reached):
                reached.add(called)
                waiting.append(called)
        self._members = [
            member
            for member in self._members
            if not isinstance(member, cst.FunctionDef) or member.name.value in reached or member.name.value[0] == "_"
        ]

    def parameters(self, name: str) -> list[str]:
        """Names of the method's positional parameters without `self`."""
        return [parameter.name.value for parameter in self.method(name).params.params[1:]]

    def attributes(self) -> set[str]:
        """Attributes of `self` that the class reads, assigns or calls."""
        return self_attributes(self._members)

    def _called(self, name: str) -> bool:
        return name in self._mentioned

    # -- applying an edit --------------------------------------------------------------------

    def apply(self, name: str, edit: Edit) -> None:
        """Add `edit` under the marker `name`.

        Raises:
            ForeignBlockError: it is there already, or the block lacks what the edit builds on.
        """
        if name in self.markers():
            raise ForeignBlockError(f"{name} is there already")
        if edit.init:
            self._insert_init(name, edit.init)
        if edit.signals:
            self._insert_signals(name, edit.signals)
        if edit.scores:
            self._insert_scores(name, edit.scores)
        if edit.kernel:
            self._replace_kernel(name, edit)
        if edit.masked or edit.coefficients:
            self._insert_coefficients(name, edit)
        if edit.output:
            self._insert_output(name, edit.output)
        if edit.optional:
            self._replace_optional(name, edit.optional)

    def _insert_init(self, name: str, code: str) -> None:
        body = self.body("__init__")
        new = parse_statements(code, marker=name)
        taken = self._mentioned & assigned_attributes(new)
        if taken:
            raise ForeignBlockError(f"the attribute {sorted(taken)[0]} is taken")
        missing = names_in(new) & {"d_model", "n_heads", "head_dim"} - set(self.parameters("__init__"))
        if missing:
            raise ForeignBlockError(f"__init__ has no parameter {sorted(missing)[0]}")
        if "super" not in names_in(body) or count_returns(body):
            raise ForeignBlockError("__init__ does not call super().__init__() or returns early")
        if assigned_names(new) & names_in(body):
            raise ForeignBlockError("__init__ uses a local name of the edit")
        self.set_body("__init__", [*body, *new])

    def _rename(self, method: str, code: str, returned: dict[str, str]) -> list[cst.BaseStatement]:
        """Statements in this method's names; checks that every name they build on is there."""
        new = parse_statements(code, rename=returned)
        known = set(self.parameters(method)) | set(returned.values())
        missing = names_in(parse_statements(code)) & set(CANONICAL) - set(returned) - known
        if missing:
            raise ForeignBlockError(f"{method} has no parameter {sorted(missing)[0]}")
        locals_ = assigned_names(parse_statements(code)) - set(CANONICAL)
        if locals_ & names_in(self.body(method)):
            raise ForeignBlockError(f"{method} uses the local name {sorted(locals_ & names_in(self.body(method)))[0]}")
        if not self._called(method):
            raise ForeignBlockError(f"{method} is never called")
        return new

    def _insert_before_return(self, name: str, method: str, code: str, returned: dict[str, str]) -> None:
        new = parse_statements(source_of(self._rename(method, code, returned)), marker=name)
        body = self.body(method)
        self.set_body(method, [*body[:-1], *new, body[-1]])

    def _bind(self, method: str, names: Sequence[str], expression: cst.BaseExpression, statement: str) -> None:
        """Give a returned expression a name, so that statements can follow it."""
        body = self.body(method)
        bound = parse_statements(f"{', '.join(names)} = {expression_code(expression)}\n{statement}")
        bound[0] = bound[0].with_changes(leading_lines=getattr(body[-1], "leading_lines", ()))
        self.set_body(method, [*body[:-1], *bound])

    def _insert_signals(self, name: str, code: str) -> None:
        method = self.slots.signals
        value = final_return(method, self.body(method)).value
        if not isinstance(value, cst.Tuple) or len(value.elements) != 3:
            raise ForeignBlockError(f"{method} does not return three values")
        names = [e.value.value if isinstance(e.value, cst.Name) else "" for e in value.elements]
        if any(isinstance(e, cst.StarredElement) for e in value.elements) or len({*names}) != 3 or "" in names:
            self._bind(method, ("q", "k", "v"), value, "return q, k, v")
            names = ["q", "k", "v"]
        self._insert_before_return(name, method, code, dict(zip(("q", "k", "v"), names, strict=True)))

    def _insert_scores(self, name: str, code: str) -> None:
        method, call = self.slots.scores, self.slots.scores_call
        value = final_return(method, self.body(method)).value
        if value is None:
            raise ForeignBlockError(f"{method} returns nothing")
        if call is None:
            if not isinstance(value, cst.Name):
                self._bind(method, ("s",), value, "return s")
                value = cst.Name("s")
            self._insert_before_return(name, method, code, {"s": value.value})
            return
        if not (isinstance(value, cst.Call) and expression_code(value.func) == f"self.{call}"):
            raise ForeignBlockError(f"{method} does not end with self.{call}(...)")
        if not value.args or value.args[0].keyword or value.args[0].star:
            raise ForeignBlockError(f"self.{call} does not take the scores first")
        first = value.args[0].value
        if not isinstance(first, cst.Name):
            renamed = value.with_changes(args=[value.args[0].with_changes(value=cst.Name("s")), *value.args[1:]])
            self._bind(method, ("s",), first, f"return {expression_code(renamed)}")
            first = cst.Name("s")
        self._insert_before_return(name, method, code, {"s": first.value})

    def _insert_output(self, name: str, code: str) -> None:
        method = self.slots.output
        value = final_return(method, self.body(method)).value
        if value is None:
            raise ForeignBlockError(f"{method} returns nothing")
        if not isinstance(value, cst.Name):
            self._bind(method, ("y",), value, "return y")
            value = cst.Name("y")
        self._insert_before_return(name, method, code, {"y": value.value})

    def _kernel_index(self) -> int:
        """Index of the statement that first assigns the coefficients, in the method that makes them."""
        body = self.body(self.slots.coefficients)
        final_return(self.slots.coefficients, body)
        for i, statement in enumerate(body):
            if self.slots.coefficient in assigned_names([statement]):
                return i
        raise ForeignBlockError(f"{self.slots.coefficients} never assigns {self.slots.coefficient}")

    def kernel_start(self) -> int:
        """Index of the kernel's first statement in the method that makes the coefficients.

        An operator's kernel may prepare something before it assigns.

        Raises:
            ForeignBlockError: that method is missing or never assigns the coefficients.
        """
        body, index = self.body(self.slots.coefficients), self._kernel_index()
        marker = marker_of(body[index])
        while marker and index and marker_of(body[index - 1]) == marker:
            index -= 1
        return index

    def _check_coefficients_return(self) -> None:
        method = self.slots.coefficients
        value = final_return(method, self.body(method)).value
        if self.slots.normaliser == method:
            if self.slots.coefficient not in names_in([value] if value else []):
                raise ForeignBlockError(f"{method} does not return what {self.slots.coefficient} combines")
        elif not isinstance(value, cst.Name) or value.value != self.slots.coefficient:
            raise ForeignBlockError(f"{method} does not return {self.slots.coefficient}")

    def _insert_coefficients(self, name: str, edit: Edit) -> None:
        method = self.slots.coefficients
        self._check_coefficients_return()
        rename = {"w": self.slots.coefficient}
        if edit.masked:
            start = self.kernel_start()
            new = parse_statements(source_of(self._rename(method, edit.masked, rename)), marker=name)
            body = self.body(method)
            self.set_body(method, [*body[:start], *new, *body[start:]])
        if edit.coefficients:
            self._insert_before_return(name, method, edit.coefficients, rename)

    def _replace_kernel(self, name: str, edit: Edit) -> None:
        slots, method = self.slots, self.slots.coefficients
        self._check_coefficients_return()
        index = self._kernel_index()
        body = self.body(method)
        spelled = ast.unparse(ast.parse(source_of([body[index]])))
        allowed = [f"{slots.coefficient} = {right}" for right in slots.softmax_spellings]
        if spelled not in {ast.unparse(ast.parse(code)) for code in allowed}:
            raise ForeignBlockError(f"{method} does not compute softmax's coefficients")
        rename = {"w": slots.coefficient}
        new = self._rename(method, edit.kernel, rename)
        row_sum = source_of(parse_statements(edit.row_sum, rename=rename)).strip() if edit.row_sum else ""
        if slots.normaliser is None and edit.row_sum != UNNORMALISED:
            new += parse_statements(
                slots.row_sum.format(row_sum=row_sum or f"{slots.coefficient}.sum(-1, keepdim=True)")
            )
        marked = parse_statements(source_of(new), marker=name)
        marked[0] = marked[0].with_changes(leading_lines=getattr(body[index], "leading_lines", ()))
        self.set_body(method, [*body[:index], *marked, *body[index + 1 :]])
        if slots.normaliser is not None and row_sum:
            self._replace_return(
                name, slots.normaliser, slots.plain_return or "", slots.row_sum.format(row_sum=row_sum)
            )

    def _replace_return(self, name: str, method: str, expected: str, code: str) -> None:
        body = self.body(method)
        final_return(method, body)
        if not self._called(method):
            raise ForeignBlockError(f"{method} is never called")
        if ast.unparse(ast.parse(expected)) != ast.unparse(ast.parse(source_of([body[-1]]).strip())):
            raise ForeignBlockError(f"{method} does not end with `{expected}`")
        new = parse_statements(code, marker=name)
        new[0] = new[0].with_changes(leading_lines=getattr(body[-1], "leading_lines", ()))
        self.set_body(method, [*body[:-1], *new])

    def _replace_optional(self, name: str, code: str) -> None:
        self._rename(self.slots.optional, code, {})
        self._replace_return(name, self.slots.optional, "return None", code)

    # -- what operators have added -----------------------------------------------------------

    def markers(self) -> list[str]:
        """Names in the trailing comments of statements, each once, in order of appearance."""
        seen: dict[str, None] = {}
        for member in self._members:
            if isinstance(member, cst.FunctionDef) and isinstance(member.body, cst.IndentedBlock):
                for statement in member.body.body:
                    if marker := marker_of(statement):
                        seen.setdefault(marker)
        return list(seen)

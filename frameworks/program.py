"""One source file with one EVOLVE-BLOCK: parse, splice, identity, diff, load.

A proposal may only replace the block. Its text is spliced into the pristine file here
and never trusted from the proposer, so whatever a reply holds, every byte outside the
markers stays ours. Two blocks that differ only in comments, docstrings or white space
are the same candidate: identity hashes the block's normalised syntax tree.

A line ends where Python's own tokeniser ends it: at LF, CR LF or CR. `str.splitlines` also
breaks at form feeds and Unicode separators, which are ordinary characters of a string or
comment; with it, one such character would move every marker below it.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import io
import json
import linecache
import re
import sys
import tokenize
import types
from dataclasses import dataclass

START_MARKER = "# EVOLVE-BLOCK-START"
END_MARKER = "# EVOLVE-BLOCK-END"
_LINE_END = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")


class ProgramError(ValueError):
    """A source or a block is not a legal program; the message says what was found and what is allowed."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A framework's source with one block spliced in.

    Attributes:
        framework: name of the framework it belongs to.
        contract_version: version of the block's contract; part of the identity.
        source: the whole file.
        block: the text between the markers.
        identity: sha256 of (framework, contract version, normalised block), in hex.
    """

    framework: str
    contract_version: str
    source: str
    block: str
    identity: str

    def load(self) -> types.ModuleType:
        """Execute the source as a module with a name of its own. Untrusted: call it in a worker only."""
        return load_module(self.source, f"evoscale_candidate_{self.identity[:16]}")


def _lines(text: str) -> list[str]:
    """The lines of a text as Python counts them, each with its own line end."""
    rows = _LINE_END.split(text)
    return rows if rows[-1] else rows[:-1]


def _comment_lines(source: str, marker: str) -> list[int]:
    """Lines (0-based) whose only content is the comment `marker`; a marker inside a string is text."""
    if marker not in source:
        return []
    # universal newlines: the tokeniser then counts lines exactly as `_lines` does
    text = io.StringIO(source, newline=None)
    try:
        tokens = list(tokenize.generate_tokens(text.readline))
    except (tokenize.TokenError, SyntaxError, ValueError):
        return [i for i, row in enumerate(_lines(source)) if row.strip() == marker]
    return [
        token.start[0] - 1
        for token in tokens
        if token.type == tokenize.COMMENT and token.string.strip() == marker and token.line.strip() == marker
    ]


def split_source(source: str) -> tuple[str, str, str]:
    """Split a source into (head with start marker, block, tail with end marker).

    Raises:
        ProgramError: no marker, more than one, or the end before the start.
    """
    starts = _comment_lines(source, START_MARKER)
    ends = _comment_lines(source, END_MARKER)
    for marker, found in ((START_MARKER, starts), (END_MARKER, ends)):
        if len(found) != 1:
            where = "" if not found else f" (lines {', '.join(str(line + 1) for line in found)})"
            raise ProgramError(f"{len(found)} lines read '{marker}'{where}; a program has exactly one")
    if ends[0] < starts[0]:
        raise ProgramError(
            f"'{END_MARKER}' (line {ends[0] + 1}) stands before '{START_MARKER}' (line {starts[0] + 1}); "
            "the block lies between start and end"
        )
    lines = _lines(source)
    head = "".join(lines[: starts[0] + 1])
    block = "".join(lines[starts[0] + 1 : ends[0]])
    return head, block, "".join(lines[ends[0] :])


def parse_block(block: str) -> ast.Module:
    """The block's syntax tree.

    Raises:
        ProgramError: it does not parse, is empty, nests too deep, or holds a marker.
    """
    if "\x00" in block:
        raise ProgramError("the block holds a NUL byte; only text is allowed")
    for marker in (START_MARKER, END_MARKER):
        if any(line.strip() == marker for line in _lines(block)):
            raise ProgramError(f"the block holds the line '{marker}'; the markers belong to the shell")
    try:
        block.encode("utf-8")
        tree = ast.parse(block)
    except SyntaxError as error:
        raise ProgramError(f"the block does not parse: {error.msg} (line {error.lineno} of the block)") from None
    except (RecursionError, MemoryError, ValueError, OverflowError) as error:
        raise ProgramError(f"the block does not parse: {type(error).__name__}: {error}") from None
    if not any(not isinstance(node, ast.Expr) for node in tree.body):
        raise ProgramError("the block is empty; it must define the framework's block class")
    return tree


def _meaning(node: object) -> str:
    """Canonical text of a syntax tree: no positions, no bare constants as statements, no empty fields.

    Written out instead of `ast.dump` because that shows other fields in other Python versions.
    """
    if isinstance(node, list):
        kept = [row for row in node if not (isinstance(row, ast.Expr) and isinstance(row.value, ast.Constant))]
        if node and not kept:
            kept = [ast.Pass()]
        return f"[{', '.join(map(_meaning, kept))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = ((name, value) for name, value in ast.iter_fields(node) if name not in ("kind", "type_comment"))
    shown = (f"{name}={_meaning(value)}" for name, value in fields if value is not None and value != [])
    return f"{type(node).__name__}({', '.join(shown)})"


def normalise_block(block: str) -> str:
    """The block's meaning as canonical text: no comments, docstrings or layout.

    Raises:
        ProgramError: the block does not parse.
    """
    try:
        return _meaning(parse_block(block))
    except RecursionError:
        raise ProgramError("the block nests too deep to be normalised") from None


def block_identity(framework: str, contract_version: str, block: str) -> str:
    """sha256 hex of (framework, contract version, normalised block)."""
    parts = json.dumps([framework, contract_version, normalise_block(block)])
    return hashlib.sha256(parts.encode()).hexdigest()


def splice_block(pristine: str, block: str) -> str:
    """The pristine source with its block replaced; head and tail keep every byte.

    Raises:
        ProgramError: the block does not parse, or the result would not have exactly one block.
    """
    parse_block(block)
    head, _, tail = split_source(pristine)
    if block and not block.endswith("\n"):
        block += "\n"
    source = head + block + tail
    if split_source(source) != (head, block, tail):
        raise ProgramError("the block changes where the markers stand")
    parse_block_in_place(source)
    return source


def parse_block_in_place(source: str) -> None:
    """Check that the whole spliced source compiles; nothing is executed.

    A block that parses alone may still not fit: a `from __future__` import in the middle of a
    file, or `return` and `break` where there is nothing to leave.

    Raises:
        ProgramError: it does not.
    """
    try:
        compile(source, "<program>", "exec", dont_inherit=True)
    except (SyntaxError, RecursionError, MemoryError, ValueError, OverflowError) as error:
        raise ProgramError(f"the block does not fit into its file: {type(error).__name__}: {error}") from None


def make_program(framework: str, contract_version: str, pristine: str, block: str) -> Program:
    """Splice `block` into `pristine` and give the result its identity.

    Raises:
        ProgramError: the block is not legal, see `parse_block` and `splice_block`.
    """
    source = splice_block(pristine, block)
    return Program(
        framework=framework,
        contract_version=contract_version,
        source=source,
        block=split_source(source)[1],
        identity=block_identity(framework, contract_version, block),
    )


def block_diff(parent: str, child: str, parent_name: str = "parent", child_name: str = "child") -> str:
    """Unified diff of two blocks, three lines of context; empty when they are equal."""
    rows = difflib.unified_diff(_lines(parent), _lines(child), parent_name, child_name)
    return "".join(row if row.endswith("\n") else row + "\n" for row in rows)


def load_module(source: str, name: str) -> types.ModuleType:
    """Execute `source` as a fresh module called `name`; tracebacks show its lines.

    The caller owns the risk: run it only in a sandboxed worker unless the source is ours.
    """
    filename = f"<{name}>"
    module = types.ModuleType(name)
    module.__file__ = filename
    linecache.cache[filename] = (len(source), None, _lines(source), filename)
    sys.modules[name] = module
    try:
        exec(compile(source, filename, "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module

"""Name to control: blocks whose verdict is known before they are run.

A control is a block of a known mechanism with the conclusion the pipeline must come to:
a *positive* one must be promoted, a *null* one must not, a *cheat* must be rejected by a
guard and an *honest* one must never be. Each lives in a file of its own, in the folder
of its framework. The file is a plain Python module: its docstring is the label, and what
follows, without the imports that the framework's shell already makes, is the block. The
label stays out of the block, so a cheat does not announce itself.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from frameworks.program import Program
from frameworks.registry import framework as framework_named
from frameworks.registry import frameworks

KINDS = ("positive", "honest", "null", "cheat")
VERDICTS = ("promoted", "not promoted", "rejected", "any")
LEAKS = (
    "always",
    "from a trained gate on",
    "beyond 64 tokens",
    "at multiples of 64 tokens",
    "in evaluation",
    "at large inputs",
    "across the batch",
    "across calls",
)

_HERE = Path(__file__).parent
_OFFERED = frozenset({"torch", "nn", "F", "math"})  # names every framework's shell imports
_FIELDS = {"kind": KINDS, "expected": VERDICTS, "paper": None, "leaks": LEAKS}


class ControlError(ValueError):
    """A control file's label is not complete; the message says what is missing and what is allowed."""


class UnknownControlError(ValueError):
    """No control (or kind) of that name; the message lists near matches and all names."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """A block with a known conclusion.

    Attributes:
        name: unique over all frameworks; the file's name.
        framework: name of the framework whose block it is.
        kind: positive, honest, null or cheat.
        expected: what the pipeline must conclude at the demo ladder; `any` leaves promotion open, never rejection.
        summary: one line.
        paper: source of the mechanism, or of the fault for a cheat; empty when it is our own.
        leaks: for a cheat, the condition under which it leaks (one of `LEAKS`); empty otherwise.
        path: the control's file.
    """

    name: str
    framework: str
    kind: str
    expected: str
    summary: str
    paper: str
    leaks: str
    path: Path

    @property
    def block(self) -> str:
        """The text that goes between the markers."""
        return _block_of(self.path.read_text(encoding="utf-8"))

    def program(self) -> Program:
        """The framework's pristine file with this block spliced in."""
        return framework_named(self.framework).program(self.block)


def _is_offered(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Import | ast.ImportFrom):
        return False
    return all((alias.asname or alias.name) in _OFFERED for alias in node.names)


def _block_of(source: str) -> str:
    """The module without its label and without imports that the shell already makes."""
    dropped: set[int] = set()
    for index, node in enumerate(ast.parse(source).body):
        if (index == 0 and isinstance(node, ast.Expr)) or _is_offered(node):
            dropped.update(range(node.lineno - 1, node.end_lineno or node.lineno))
    lines = source.split("\n")
    return "\n".join(line for index, line in enumerate(lines) if index not in dropped).strip("\n") + "\n"


def _read(path: Path, framework: str) -> Control:
    label = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    summary, _, rest = label.partition("\n\n")
    fields = dict.fromkeys(_FIELDS, "")
    for line in rest.splitlines():
        key, separator, value = line.partition(": ")
        if not separator or key not in _FIELDS:
            raise ControlError(f"{path.name}: label line {line!r} is not 'field: value'; fields: {', '.join(_FIELDS)}")
        fields[key] = value.strip()
    for key, allowed in _FIELDS.items():
        needed = key in ("kind", "expected") or (key == "leaks" and fields["kind"] == "cheat")
        if allowed and (needed or fields[key]) and fields[key] not in allowed:
            raise ControlError(f"{path.name}: {key} is {fields[key]!r}; allowed: {', '.join(allowed)}")
    return Control(name=path.stem, framework=framework, path=path, summary=" ".join(summary.split()), **fields)


@cache
def _by_name() -> dict[str, Control]:
    found: dict[str, Control] = {}
    for name in frameworks():
        for path in sorted((_HERE / name).glob("[!_]*.py")):
            if path.stem in found:
                raise ControlError(f"two controls are called {path.stem!r}: {found[path.stem].path} and {path}")
            found[path.stem] = _read(path, name)
    return found


def _unknown(what: str, name: str, known: Iterable[str]) -> UnknownControlError:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(repr(match) for match in near)}?" if near else ";"
    return UnknownControlError(f"unknown {what} {name!r}{hint} Known: {', '.join(names)}")


def controls(framework: str | None = None, kind: str | None = None) -> list[Control]:
    """All controls, or those of one framework or kind; by framework, then by name.

    Raises:
        UnknownFrameworkError: no framework of that name.
        UnknownControlError: no such kind.
        ControlError: a control file has no complete label.
    """
    if framework is not None:
        framework_named(framework)
    if kind is not None and kind not in KINDS:
        raise _unknown("kind of control", kind, KINDS)
    return [
        entry for entry in _by_name().values() if framework in (None, entry.framework) and kind in (None, entry.kind)
    ]


def control(name: str) -> Control:
    """The control called `name`.

    Raises:
        UnknownControlError: there is none; the message lists near matches and all names.
    """
    known = _by_name()
    if name not in known:
        raise _unknown("control", name, known)
    return known[name]

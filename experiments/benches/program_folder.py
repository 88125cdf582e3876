"""Programs in a folder: which framework each belongs to, and what the guards are expected to say.

A file is a whole program as a framework ships it. Its block is spliced into the pristine
shell, exactly as a reply's would be, and a changed shell is refused. The expectation comes
from the name: `cheat*` and `leak*`, or a folder `cheats`, must be rejected; `honest*`, or
a folder `honest`, must pass; of anything else only the conclusion is reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frameworks.program import Program
    from frameworks.registry import Framework

MOST_BYTES = 2_000_000
_CHEAT = re.compile(r"(cheat|leak)", re.IGNORECASE)
_HONEST = re.compile(r"honest", re.IGNORECASE)
_MARKER = re.compile(r"^\s*# EVOLVE-BLOCK-(START|END)\s*$", re.MULTILINE)


class NoProgramError(ValueError):
    """A file is no program of any framework; the message says what it lacks."""


class RefusedProgramError(ValueError):
    """A file is meant as a program and cannot become a candidate; the message says why."""


@dataclass(frozen=True, kw_only=True)
class ProgramFile:
    """A file of the folder.

    Attributes:
        name: its path below the folder.
        path: where it lies.
        expected: `rejected`, `passed`, or None where its name says nothing.
    """

    name: str
    path: Path
    expected: str | None

    def program(self) -> tuple[Framework, Program]:
        """The framework it belongs to, and the program.

        Raises:
            NoProgramError: it is no text, or defines no framework's block class.
            RefusedProgramError: it is a framework's, but its block or its shell is not legal.
        """
        text = self._text()
        found = _framework_of(text)
        return found, _program(found, text)

    def _text(self) -> str:
        try:
            if self.path.stat().st_size > MOST_BYTES:
                raise NoProgramError(f"it has more than {MOST_BYTES:,} bytes")
            return self.path.read_text(encoding="utf-8")
        except OSError as error:
            raise NoProgramError(f"it cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise NoProgramError("it is not UTF-8 text") from None


def program_files(folder: Path) -> Iterator[ProgramFile]:
    """Every file below `folder`, by name; hidden files, caches and empty `__init__.py` are skipped."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if not path.is_file() or any(part.startswith(".") or part == "__pycache__" for part in parts):
            continue
        if path.name == "__init__.py" and path.stat().st_size == 0:
            continue
        yield ProgramFile(name="/".join(parts), path=path, expected=_expected(parts))


def _expected(parts: tuple[str, ...]) -> str | None:
    """By the file's own name first, then by the nearest folder."""
    for part in reversed(parts):
        if _CHEAT.match(part):
            return "rejected"
        if _HONEST.match(part):
            return "passed"
    return None


def _framework_of(text: str) -> Framework:
    """The one framework whose block class the text defines, inside its block where it has one."""
    from frameworks.program import ProgramError, split_source
    from frameworks.registry import frameworks

    try:
        searched = split_source(text)[1]
    except ProgramError:
        searched = text
    known = frameworks().values()
    for where in (searched, text):
        found = [entry for entry in known if re.search(rf"^class\s+{entry.block_class}\b", where, re.MULTILINE)]
        if len(found) > 1:  # helper classes may bear another framework's name; the shell decides
            found = [entry for entry in found if re.search(rf"\b{entry.evolvable_class}\b", text)] or found
        if found:
            return found[0]
    by_shell = [entry for entry in known if re.search(rf"^class\s+{entry.evolvable_class}\b", text, re.MULTILINE)]
    if by_shell:
        return by_shell[0]
    names = ", ".join(f"{entry.block_class} ({entry.name})" for entry in known)
    raise NoProgramError(f"it defines none of the block classes {names}")


def _program(found: Framework, text: str) -> Program:
    from evolution.proposers.reply import ReplyError, extract_block
    from frameworks.program import ProgramError

    try:
        try:
            return found.program(extract_block(text, found))
        except ReplyError as error:
            # Fences or ellipses in comments mislead what reads replies; a whole file is read by its markers.
            if error.kind == "outside_block" or len(_MARKER.findall(text)) != 2:
                raise
            return found.program_from_source(text)
    except (ReplyError, ProgramError) as error:
        raise RefusedProgramError(str(error)) from None

"""Fenced code in Markdown text: what prompts and replies carry programs in."""

from __future__ import annotations

import re
from dataclasses import dataclass

_OPEN = re.compile(r"^ {0,3}(`{3,}|~{3,})[ \t]*([^\s`]*)[^`]*$")
_HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*$")
_PYTHON = {"", "python", "python3", "py"}


@dataclass(frozen=True, kw_only=True)
class Fence:
    """One fenced section.

    Attributes:
        language: first word behind the opening fence, lower case.
        code: the text inside, each line ending in a newline.
        closed: whether the closing fence was found before the text ended.
        heading: the nearest heading above it, empty when there is none.
        line: line of the opening fence in the text, from 1.
    """

    language: str
    code: str
    closed: bool
    heading: str
    line: int

    @property
    def is_python(self) -> bool:
        """Whether it says python or nothing."""
        return self.language in _PYTHON


def find_fences(text: str) -> list[Fence]:
    """All fenced sections of `text`, in order (CommonMark rules; a fence closes with at least its own length)."""
    fences: list[Fence] = []
    heading, opened, start = "", None, 0
    inside: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if opened is None:
            match = _OPEN.match(line)
            if match:
                opened, start, inside = match, number, []
            elif title := _HEADING.match(line):
                heading = title.group(1)
            continue
        mark, stripped = opened.group(1), line.strip()
        if len(stripped) >= len(mark) and not stripped.strip(mark[0]) and line[:4].strip():
            fences.append(_fence(opened, inside, True, heading, start))
            opened = None
        else:
            inside.append(line)
    if opened is not None:
        fences.append(_fence(opened, inside, False, heading, start))
    return fences


def _fence(opened: re.Match[str], lines: list[str], closed: bool, heading: str, line: int) -> Fence:
    return Fence(
        language=opened.group(2).lower(),
        code="".join(row + "\n" for row in lines),
        closed=closed,
        heading=heading,
        line=line,
    )


def fence_for(code: str) -> str:
    """A run of backticks longer than any in `code`, at least three."""
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    return "`" * max(3, longest + 1)


def fenced(code: str, language: str = "python") -> str:
    """`code` as a fenced section without a newline at its end."""
    fence = fence_for(code)
    return f"{fence}{language}\n{code.rstrip()}\n{fence}"

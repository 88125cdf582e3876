"""The one error that merging raises."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MergeError(ValueError):
    """A merge cannot be done as asked; the message says what was found and what is allowed."""


def near_match(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where one of the known names is near, else a full stop."""
    near = difflib.get_close_matches(name, list(known), n=2, cutoff=0.4)
    return f"; did you mean {' or '.join(repr(match) for match in near)}?" if near else "."

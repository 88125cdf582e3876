"""The one error that a corpus raises."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CorpusError(ValueError):
    """A corpus cannot be read, built or used; the message says what was found and what is allowed."""


def near_matches(name: str, known: Iterable[str]) -> str:
    """The part of a message that names what `name` may have meant: `; did you mean 'x'?` or nothing."""
    near = difflib.get_close_matches(name, list(known), n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(match) for match in near)}?" if near else ""

"""The one error of translation models, their data and their fine-tuning."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TranslationError(ValueError):
    """A model, its files or a translation task cannot be used; the message says what was found and what is allowed."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The part of a message that names what `name` may have meant: `; did you mean 'x'?` or nothing."""
    near = difflib.get_close_matches(name, list(known), n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(match) for match in near)}?" if near else ""

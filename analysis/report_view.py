"""A run as its report sees it: candidates by short names, losses by seed, what to show in detail."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from analysis.markup import Html, Limits, Row, attribute, esc, number
from analysis.report_data import ReportData
from analysis.svg_figure import clean_text

_HASH = re.compile(r"[0-9a-f]{24,}")
COMPLETED = "completed"


def status_of(row: Row) -> str:
    """How a run ended, in lower case words; 'not evaluated' when the row does not say."""
    status = str(row.get("status") or "not evaluated")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", status).replace("_", " ").lower()


def loss_of(row: Row) -> float | None:
    """The validation loss of a completed run; None for every other."""
    return number(row.get("val_loss")) if status_of(row) == COMPLETED else None


class View:
    """`data` within `limits`, with what several parts of the page need."""

    def __init__(self, data: ReportData, limits: Limits) -> None:
        self.data = data
        self.limits = limits

    def short(self, candidate: object) -> str:
        """A candidate's name in a figure: "reference", the start of its hash, or what it is called."""
        if candidate is None:
            return "none"
        name = str(candidate)
        if name == self.data.reference:
            return "reference"
        return name[:10] if _HASH.fullmatch(name) else clean_text(name, 24)

    def name(self, candidate: object) -> Html:
        """A candidate's name on the page, with its full identity as title."""
        if str(candidate) == self.data.reference:
            return Html(f'<span title="{attribute(candidate)}">reference</span>')
        return Html(f'<code title="{attribute(candidate)}">{esc(self.short(candidate))}</code>')

    @cached_property
    def nodes(self) -> dict[str, Row]:
        """Lineage rows by candidate."""
        return {str(row["id"]): row for row in self.data.lineage if row.get("id") is not None}

    def changes(self, candidate: object, most: int = 160) -> str:
        """What a candidate changed in its parent, in a few words; empty when not recorded."""
        text = self.nodes.get(str(candidate), {}).get("changes")
        return clean_text(" ".join(str(text).split()), most) if text else ""

    @cached_property
    def arms(self) -> list[str]:
        """Reference, the candidate in detail, and up to three more of the shortlist: the colours of all figures."""
        wanted: list[str] = [self.data.reference]
        for candidate in (self.data.focus, *self.data.shortlist):
            if candidate is not None and candidate not in wanted:
                wanted.append(candidate)
        return wanted[:5]

    def series(self, candidate: object) -> int | None:
        """The number of a candidate's colour, the same in every figure; None for one of many."""
        return self.arms.index(str(candidate)) if str(candidate) in self.arms else None

    @cached_property
    def path(self) -> list[str]:
        """The candidate in detail and its ancestors, oldest first."""
        found: list[str] = []
        name = self.data.focus
        while name is not None and name in self.nodes and name not in found:
            found.append(name)
            parent = self.nodes[name].get("parent")
            name = None if parent is None else str(parent)
        return found[::-1]

    @cached_property
    def size_names(self) -> list[str]:
        """Every size that is described or was run, in that order."""
        rows: Iterable[Row] = (*self.data.search, *self.data.confirmation)
        names = [str(row["name"]) for row in self.data.sizes if row.get("name") is not None]
        names += [str(size) for size in (self.data.plan or {}).get("sizes") or ()]
        names += [str(row["size"]) for row in rows if row.get("size") is not None]
        return list(dict.fromkeys(names))

    def losses(self, rows: Sequence[Row]) -> dict[tuple[str, str], dict[object, float]]:
        """(candidate, size) -> seed -> loss, completed runs only."""
        found: dict[tuple[str, str], dict[object, float]] = {}
        for row in rows:
            loss = loss_of(row)
            if loss is not None:
                key = (str(row.get("candidate")), str(row.get("size")))
                found.setdefault(key, {})[row.get("seed")] = loss
        return found

    def differences(self, candidate: str, size: str) -> dict[object, float]:
        """Seed -> confirmation loss minus the reference's with the same seed at one size."""
        losses = self._confirmed
        mine, theirs = losses.get((candidate, size), {}), losses.get((self.data.reference, size), {})
        return {seed: mine[seed] - theirs[seed] for seed in mine if seed in theirs}

    @cached_property
    def _confirmed(self) -> dict[tuple[str, str], dict[object, float]]:
        return self.losses(self.data.confirmation)

    def evidence(self, verdict: Row) -> Mapping[str, Any]:
        """A verdict's evidence; empty when it has none."""
        found = verdict.get("evidence")
        return found if isinstance(found, Mapping) else {}

"""The rows of a bench as a Markdown file, for the published tables."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.benches.row import Row, Value

_SIGNS = {"at_most": "at most ", "at_least": "at least "}


def markdown_table(name: str, promises: str, machine: str, rows: Sequence[Row]) -> str:
    """A page: the command that made it, the machine, how many rows hold, and a row a promise.

    Args:
        name: of the bench.
        promises: what it measures, in one line.
        machine: what it ran on.
        rows: in the order they were measured.
    """
    short = [row.name for row in rows if not row.holds]
    held = "Every row holds." if not short else f"{len(short)} of {len(rows)} rows fall short: {'; '.join(short)}."
    lines = [
        f"# `evoscale bench {name}`",
        "",
        f"{promises[:1].upper()}{promises[1:]}. Written by `evoscale bench {name} --table FILE` on {machine}.",
        f"{len(rows)} rows. {held}",
        "",
        "| what | measured | target | holds |",
        "|---|---|---|---|",
    ]
    for row in rows:
        target = "" if row.target is None else f"{_SIGNS.get(row.rule, '')}{_shown(row.target)}"
        measured = f"{_shown(row.value)} {row.unit}".strip()
        cells = (row.name, measured, target, "yes" if row.holds else "**no**")
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _shown(value: Value) -> str:
    if value is None:
        return "not measured"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")

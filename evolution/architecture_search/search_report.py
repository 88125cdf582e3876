"""The report of a search: `search_report.json` for machines, `search_report.md` for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolution.architecture_search.sketch import mermaid
from evolution.architecture_search.table import Row
from evolution.manifest import write_json

if TYPE_CHECKING:
    from frameworks.architecture.schema import Architecture

JSON_NAME = "search_report.json"
TEXT_NAME = "search_report.md"


def write_report(
    folder: Path,
    command: str,
    rows: Sequence[Row],
    known: Mapping[str, Architecture],
    given: Sequence[Architecture],
    origins: Mapping[str, Mapping[str, Any]],
) -> str:
    """Write both files and return the sentence that says what was found.

    Args:
        folder: the search's.
        command: `sweep` or `evolve`.
        rows: best first.
        known: every architecture by identity.
        given: the architectures the search started from.
        origins: how each came to be, by identity.
    """
    from frameworks.architecture.difference import differences
    from frameworks.architecture.document import identity

    best = rows[0]
    winner = known[best.identity]
    starts = {identity(architecture) for architecture in given}
    rival = next((row for row in rows if row.identity in starts and row.steps == best.steps), None)
    seed = known[rival.identity] if rival is not None else given[0]
    changes = differences(seed, winner)
    sentence = _sentence(best, rival, starts)
    write_json(
        folder / JSON_NAME,
        {
            "command": command,
            "sentence": sentence,
            "rows": [row.to_json() | {"origin": dict(origins.get(row.identity, {}))} for row in rows],
            "sketch": mermaid(winner),
            "compared_with": seed.name,
            "differences": changes,
        },
    )
    text = [
        f"# Search: {command}",
        "",
        sentence,
        "",
        *_table(rows),
        "",
        f"## {winner.name}",
        "",
        "```mermaid",
        mermaid(winner),
        "```",
        "",
        f"## Difference to {seed.name}",
        "",
        *([f"- {line}" for line in changes] or ["- none"]),
        "",
        "Loss is cross-entropy on held-out text in nats a token, latents drawn from the prior. One seed ranks; it "
        "proves nothing. QPC is the fall from the first training loss to the held-out loss over training FLOPs.",
        "",
    ]
    (folder / TEXT_NAME).write_text("\n".join(text), encoding="utf-8")
    return sentence


def _sentence(best: Row, rival: Row | None, starts: set[str]) -> str:
    if best.loss is None:
        return "No architecture could be trained."
    found = f"{best.name} leads with a held-out loss of {best.loss:.4f} nats a token after {best.steps} steps"
    if best.identity in starts:
        return f"{found}; it was given, nothing that was proposed is better."
    if rival is None or rival.loss is None:
        return f"{found}; no given architecture was trained as far, so it is compared with none."
    gain = rival.loss - best.loss
    return (
        f"{found}, {gain:.4f} below the best given one, {rival.name}, at equal steps and "
        f"{best.forward_flops / rival.forward_flops:.2f} of its forward FLOPs; with one seed a lead, no verdict."
    )


def _table(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| architecture | steps | loss | ECE | accuracy | QPC | parameters | MFLOPs/sequence | cache kB | tokens/s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        loss = row.status if row.loss is None else f"{row.loss:.4f}"
        held = (row.kv_bytes + row.state_bytes) / 1000
        lines.append(
            f"| {row.name} | {row.steps} | {loss} | {_shown(row.ece, '.4f')} | {_shown(row.accuracy, '.3f')} | "
            f"{_shown(row.qpc, '.2e')} | {row.parameters:,} | {row.forward_flops / 1e6:.1f} | {held:.1f} | "
            f"{_shown(row.tokens_per_second, '.0f')} |"
        )
    return lines


def _shown(value: float | None, form: str) -> str:
    return "not measured" if value is None else format(value, form)

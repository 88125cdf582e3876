"""Pieces of HTML from values of strangers: escaped, bounded, and honest about what is missing.

Text of a run (replies, reasons, names) can hold anything. It enters a page only through `esc`, which
also removes control characters and direction overrides and isolates what is written right to left.
"""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from analysis.svg_figure import clean_text

Row = Mapping[str, Any]


class Html(str):
    """Text that is already HTML; everything else is escaped when it is put into a page."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much of a run one page holds; the ledger has all of it."""

    rows: int = 500
    text: int = 600
    code: int = 60_000
    data_bytes: int = 250_000


def esc(value: object, most: int | None = 600) -> Html:
    """`value` as HTML text: what is `Html` stays, anything else is cleaned, cut and escaped."""
    if isinstance(value, Html):
        return value
    text = clean_text(value, most)
    escaped = html.escape(text, quote=True)
    return Html(escaped if text.isascii() else f"<bdi>{escaped}</bdi>")


def attribute(value: object, most: int = 300) -> str:
    """`value` for the inside of a double-quoted attribute."""
    return html.escape(clean_text(value, most), quote=True)


def number(value: object) -> float | None:
    """`value` as a finite float; None when it is missing or no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def absent(word: str = "not measured") -> Html:
    """What stands where no value is: a word, never a zero."""
    return Html(f'<span class="absent">{esc(word)}</span>')


def shown(value: object, pattern: str = ".4f", word: str = "not measured") -> Html:
    """A number in the given format, or the word for its absence."""
    found = number(value)
    return absent(word) if found is None else Html(esc(format(found, pattern).replace("-", "\N{MINUS SIGN}")))


def count(value: object, word: str = "not measured") -> Html:
    """A count with thin thousands, or with a unit from a million on."""
    found = number(value)
    if found is None:
        return absent(word)
    for limit, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(found) >= limit:
            return esc(f"{found / limit:.3g}\N{NO-BREAK SPACE}{unit}")
    return esc(f"{found:,.0f}" if found == int(found) else f"{found:,.3g}")


def when(text: object) -> str:
    """An ISO 8601 time as people write it; anything else as it is."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return clean_text(text, 60)
    zone = moment.utcoffset()
    return f"{moment:%Y-%m-%d %H:%M}" + (" UTC" if zone is not None and not zone else f"{moment:%z}")


def table(
    head: Sequence[object], rows: Iterable[Sequence[object]], *, caption: str = "", classes: str = "", numeric: str = ""
) -> Html:
    """A table; cells are escaped unless they are `Html`. `numeric` has an 'n' for each right-aligned column."""
    align = [' class="n"' if index < len(numeric) and numeric[index] == "n" else "" for index in range(len(head))]
    parts = [f'<div class="scroll"><table class="{attribute(classes)}">']
    if caption:
        parts.append(f"<caption>{esc(caption)}</caption>")
    parts.append("<thead><tr>")
    parts += [f'<th scope="col"{align[index]}>{esc(cell)}</th>' for index, cell in enumerate(head)]
    parts.append("</tr></thead><tbody>")
    for row in rows:
        cells = "".join(f"<td{align[index]}>{esc(cell)}</td>" for index, cell in enumerate(row))
        parts.append(f"<tr>{cells}</tr>")
    parts.append("</tbody></table></div>")
    return Html("".join(parts))


def paragraphs(*texts: object) -> Html:
    """One paragraph for each text that is not empty."""
    return Html("".join(f"<p>{esc(text, 4000)}</p>" for text in texts if text))


def details(summary: object, body: Html) -> Html:
    """A part that is folded away until it is asked for."""
    return Html(f"<details><summary>{esc(summary)}</summary>{body}</details>")


def _cell(value: object) -> object:
    """A CSV cell; text that a spreadsheet would take for a formula is defused."""
    if value is None:
        return ""
    if isinstance(value, str):
        text = clean_text(value)
        return f"'{text}" if text[:1] in "=+-@\t\r" else text
    return value


def _data_link(file_name: str, mime: str, content: str, note: str) -> Html:
    encoded = base64.b64encode(content.encode("utf-8", "replace")).decode("ascii")
    return Html(
        f'<a class="data" download="{attribute(file_name)}" href="data:{mime};charset=utf-8;base64,{encoded}">'
        f"{esc(file_name)}</a>{esc(note)}"
    )


def csv_link(file_name: str, rows: Sequence[Row], columns: Sequence[str], limits: Limits) -> Html:
    """A link that downloads `rows` as CSV; it says so when not all of them fit."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    kept = 0
    for row in rows:
        before = buffer.tell()
        writer.writerow([_cell(row.get(name)) for name in columns])
        if buffer.tell() > limits.data_bytes:
            buffer.truncate(before)
            break
        kept += 1
    note = "" if kept == len(rows) else f" (the first {kept:,} of {len(rows):,} rows)"
    return _data_link(file_name, "text/csv", buffer.getvalue(), note)


def json_link(file_name: str, value: object, limits: Limits) -> Html:
    """A link that downloads `value` as JSON; nothing when it is too large for a page."""
    content = json.dumps(value, indent=1, sort_keys=True, default=str)
    if len(content) > limits.data_bytes:
        return Html(f'<span class="absent">{esc(file_name)} is too large for this page</span>')
    return _data_link(file_name, "application/json", content, "")

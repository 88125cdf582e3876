"""The report of a run: one HTML file that needs nothing else, ends all questions it can, and says what it cannot.

Choices: no request ever leaves the page (a strict Content-Security-Policy forbids it, styles and the one
small script are named by hash); every text of a run is escaped; figures are inline SVG that follow the reader's
light or dark theme; the data of every figure is a link on the page. The same data gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from analysis.markup import Html, Limits, attribute, esc, when
from analysis.report_data import ReportData
from analysis.report_figures import curves_section, lineage_section, pareto_section, scaling_section
from analysis.report_proposers import arms_section, proposers_section
from analysis.report_tables import (
    change_section,
    cost_section,
    measured_section,
    notes_section,
    rejected_section,
    reproduce_section,
    trust_section,
)
from analysis.report_verdict import evidence_section, headline, verdict_section
from analysis.report_view import View
from analysis.svg_figure import clean_text

__all__ = ["ReportData", "report_html", "write_report"]

MOST_BYTES = 5_000_000

_SECTIONS: tuple[tuple[str, str, Callable[[View], Html]], ...] = (
    ("evidence", "Evidence", evidence_section),
    ("curves", "Learning curves", curves_section),
    ("scaling", "Scaling", scaling_section),
    ("lineage", "Lineage", lineage_section),
    ("change", "The change", change_section),
    ("measured", "Everything measured", measured_section),
    ("cost-loss", "Loss against cost", pareto_section),
    ("proposers", "Proposers", proposers_section),
    ("arms", "Control arms", arms_section),
    ("rejected", "Rejected", rejected_section),
    ("controls", "Controls", trust_section),
    ("cost", "Cost", cost_section),
    ("reproduce", "Do it again", reproduce_section),
    ("notes", "Notes", notes_section),
)


def write_report(data: ReportData, path: str | Path) -> Path:
    """Write the report as one self-contained HTML file, whole or not at all.

    Args:
        data: see `ReportData`.
        path: the file; an existing one is replaced, its folder must exist.

    Returns:
        The path.

    Raises:
        OSError: the file cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_bytes(report_html(data).encode("utf-8", "replace"))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def report_html(data: ReportData) -> str:
    """The page as text, under five million bytes: a very large run is shown in part, and the page says so."""
    limits = Limits()
    page = _page(View(data, limits))
    while len(page.encode("utf-8", "replace")) >= MOST_BYTES and limits.rows > 1:
        limits = replace(
            limits,
            rows=limits.rows // 3,
            text=limits.text // 2,
            code=limits.code // 2,
            data_bytes=limits.data_bytes // 3,
        )
        page = _page(View(data, limits))
    return page


def _page(view: View) -> str:
    folder = Path(__file__).parent
    css = (folder / "report.css").read_text(encoding="utf-8")
    script = (folder / "report.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; style-src '{_source_hash(css)}'; script-src '{_source_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    drawn = [(anchor, name, html) for anchor, name, make in _SECTIONS if (html := make(view))]
    links = "".join(f'<a href="#{anchor}">{esc(name)}</a>' for anchor, name, _ in drawn)
    data = view.data
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{attribute(policy, 2000)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f'<meta name="description" content="{attribute(headline(view))}"><title>{attribute(data.title)}</title>'
        f"<style>{css}</style></head>\n<body>\n{_header(view)}\n<main>{verdict_section(view)}\n"
        f'<nav aria-label="On this page">{links}</nav>\n'
        + "\n".join(html for _, _, html in drawn)
        + "\n<footer>Losses are in nats a token; lower is better. What was not measured says so and is never "
        f"shown as zero. Made by evoscale from the ledger of run {esc(data.name, 200)}.</footer></main>\n"
        f"<script>{script}</script>\n</body></html>\n"
    )


def _source_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _header(view: View) -> Html:
    data = view.data
    proposer = f"Proposed by: {clean_text(data.proposer, 400)}."
    if data.uses_llm is False:
        proposer += " No language model took part."
    created = f" Started {when(data.created)}." if data.created else ""
    state = {"finished": "", "interrupted": " Interrupted before its end.", "running": " Still running."}[data.state]
    return Html(
        f'<header><p class="eyebrow">{esc(data.framework, 120)} \N{MIDDLE DOT} run {esc(data.name, 120)}</p>'
        f'<h1>{esc(data.title, 300)}</h1><p class="byline">{esc(proposer + created + state)}</p></header>'
    )

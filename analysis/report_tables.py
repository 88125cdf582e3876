"""What changed, what was measured, what was rejected, what it cost, and how to do it again: the written parts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from analysis.markup import (
    Html,
    Row,
    absent,
    count,
    csv_link,
    details,
    esc,
    json_link,
    number,
    paragraphs,
    shown,
    table,
)
from analysis.report_view import COMPLETED, View, loss_of, status_of
from analysis.svg_figure import clean_text

_RUN_COLUMNS = (
    "candidate", "size", "seed", "status", "val_loss", "n_parameters", "tokens", "flops", "cpu_seconds", "seconds",
    "peak_memory_bytes", "reason",
)  # fmt: skip


def _section(anchor: str, heading: str, *parts: str) -> Html:
    return Html(f'<section id="{anchor}"><h2>{esc(heading)}</h2>{"".join(parts)}</section>')


def _cut_note(shown_rows: int, all_rows: int) -> Html:
    if shown_rows >= all_rows:
        return Html("")
    return paragraphs(f"The first {shown_rows:,} of {all_rows:,} are shown; the ledger has all of them.")


def change_section(view: View) -> Html:
    """The diff and the whole block of the candidate in detail."""
    data = view.data
    if data.winner_diff is None and data.winner_block is None:
        return Html("")
    parts: list[str] = [f"<p>{view.name(data.focus)} against the reference's block.</p>"]
    if data.winner_diff:
        parts.append(f"<pre>{_diff_lines(clean_text(data.winner_diff, view.limits.code))}</pre>")
    elif data.winner_diff is not None:
        parts.append(paragraphs("The two blocks are equal."))
    if data.winner_block is not None:
        block = Html(f"<pre>{esc(data.winner_block, view.limits.code)}</pre>")
        parts.append(details("The whole block", block))
    return _section("change", "The change", *parts)


def _diff_lines(diff: str) -> str:
    """One span a line, marked as added, removed or heading."""
    lines = []
    for line in diff.splitlines():
        kind = "hunk" if line.startswith(("@@", "---", "+++")) else {"+": "add", "-": "del"}.get(line[:1], "same")
        lines.append(f'<span class="{kind}">{esc(line, None) or " "}</span>')
    return "\n".join(lines)


def measured_section(view: View) -> Html:
    """Every candidate at every size, then every run."""
    data = view.data
    parts: list[str] = []
    if not data.search and not data.confirmation:
        parts.append(paragraphs("Nothing was measured."))
    if data.search:
        parts.append(
            paragraphs(
                "The search, candidate by candidate: mean validation loss in nats a token over the seeds that "
                "completed. A size a candidate never reached says so; that is not a failure."
            )
        )
        parts.append(_matrix(view))
        parts.append(details(f"Every run of the search ({len(data.search):,})", _run_table(view, data.search)))
        parts.append(f'<p class="data-line">Data: {csv_link("search.csv", data.search, _RUN_COLUMNS, view.limits)}</p>')
    if data.confirmation:
        summary = f"Every run of the confirmation ({len(data.confirmation):,})"
        parts.append(details(summary, _run_table(view, data.confirmation)))
        link = csv_link("confirmation.csv", data.confirmation, _RUN_COLUMNS, view.limits)
        parts.append(f'<p class="data-line">Data: {link}</p>')
    return _section("measured", "Everything measured", *parts)


def _matrix(view: View) -> Html:
    cells: dict[tuple[str, str], list[Row]] = {}
    for row in view.data.search:
        cells.setdefault((str(row.get("candidate")), str(row.get("size"))), []).append(row)
    candidates = list(dict.fromkeys([view.data.reference, *view.nodes, *(candidate for candidate, _ in cells)]))
    sizes = [size for size in view.size_names if any(found == size for _, found in cells)]
    tried = {candidate for candidate, _ in cells}
    rows = []
    for candidate in candidates[: view.limits.rows]:
        node = view.nodes.get(candidate, {})
        rows.append(
            (
                shown(node.get("iteration"), ".0f", "not recorded"),
                view.name(candidate),
                *(_cell(cells.get((candidate, size), ())) for size in sizes),
                shown(node.get("fitness"), ".4f", "none" if (candidate in tried) else "not evaluated"),
                view.changes(candidate),
            )
        )
    head = ("iteration", "candidate", *sizes, "fitness", "what it changes")
    return Html(
        table(head, rows, classes="sortable reasons", numeric="n." + "n" * (len(sizes) + 1))
        + _cut_note(len(rows), len(candidates))
    )


def _cell(rows: Sequence[Row]) -> Html:
    """Runs of one candidate at one size: the mean loss, how they failed, or that there were none."""
    if not rows:
        return absent("not evaluated")
    losses = [loss for row in rows if (loss := loss_of(row)) is not None]
    failed = Counter(status_of(row) for row in rows if status_of(row) != COMPLETED)
    parts = []
    if losses:
        parts.append(str(shown(sum(losses) / len(losses))))
    parts += [
        f'<span class="failed">{esc(status)}{f" ({times} of {len(rows)})" if len(rows) > 1 else ""}</span>'
        for status, times in failed.items()
    ]
    return Html("<br>".join(parts) or absent())


def _run_table(view: View, rows: Sequence[Row]) -> Html:
    listed = []
    for row in rows[: view.limits.rows]:
        status = status_of(row)
        ended = esc(status) if status == COMPLETED else Html(f'<span class="failed">{esc(status)}</span>')
        if status == "not evaluated":
            ended = absent(status)
        memory = number(row.get("peak_memory_bytes"))
        listed.append(
            (
                view.name(row.get("candidate")),
                str(row.get("size")),
                shown(row.get("seed"), ".0f", "none"),
                ended,
                shown(loss_of(row), ".4f", "none"),
                count(row.get("n_parameters")),
                count(row.get("flops")),
                shown(row.get("cpu_seconds"), ".1f"),
                shown(None if memory is None else memory / 2**20, ".0f"),
                clean_text(row.get("reason") or "", view.limits.text),
            )
        )
    head = ("candidate", "size", "seed", "ended", "loss", "parameters", "FLOPs", "CPU s", "memory, MiB", "reason")
    return Html(
        table(head, listed, classes="sortable reasons", numeric="..n.nnnnn.") + _cut_note(len(listed), len(rows))
    )


def rejected_section(view: View) -> Html:
    """What was never measured, and why."""
    rejected = view.data.rejected
    if not rejected:
        return _section("rejected", "Rejected", paragraphs("Nothing was rejected."))
    stages = Counter(str(row.get("stage") or "unknown") for row in rejected)
    words = f"{len(rejected):,} proposals were turned down or failed: " + ", ".join(
        f"{times} {stage}" for stage, times in stages.most_common(12)
    )
    rows = [
        (
            shown(row.get("iteration"), ".0f", "not recorded"),
            esc(row.get("stage") or "unknown", 80),
            absent("no program") if row.get("candidate") is None else view.name(row.get("candidate")),
            clean_text(row.get("reason") or "no reason recorded", view.limits.text),
        )
        for row in rejected[: view.limits.rows]
    ]
    link = csv_link("rejected.csv", rejected, ("iteration", "stage", "candidate", "reason"), view.limits)
    return _section(
        "rejected",
        "Rejected, and why",
        paragraphs(f"{words}."),
        table(("iteration", "stage", "candidate", "reason"), rows, classes="sortable reasons", numeric="n..."),
        _cut_note(len(rows), len(rejected)),
        f'<p class="data-line">Data: {link}</p>',
    )


def trust_section(view: View) -> Html:
    """Noise floor and controls: what the instrument itself was seen to do."""
    data = view.data
    if not data.noise_floor and not data.controls:
        return Html("")
    parts: list[str] = []
    if data.noise_floor:
        rows = [
            (str(row.get("size")), shown(row.get("value"), ".4f"), str(row.get("note") or ""))
            for row in data.noise_floor
        ]
        parts.append(paragraphs("The noise floor is what two runs without any difference in kind differ by."))
        parts.append(table(("size", "noise floor, nats", "how it was found"), rows, numeric=".n."))
    if data.controls:
        rows_of_controls = [
            (
                str(row.get("name")),
                _said(row.get("expected")),
                _said(row.get("found")),
                _holds(row.get("holds")),
            )
            for row in data.controls
        ]
        parts.append(table(("control", "expected", "found", "holds"), rows_of_controls))
    return _section("controls", "Can the instrument be trusted?", *parts)


def _said(value: object) -> Html:
    return absent("not recorded") if value is None else esc(value)


def _holds(value: object) -> Html:
    if value is None:
        return absent("not run")
    return Html('<span class="ok">yes</span>') if value else Html('<span class="failed">no</span>')


def cost_section(view: View) -> Html:
    """What was spent; what nobody reported is not zero."""
    if not view.data.cost:
        return _section("cost", "Cost", paragraphs("No cost was recorded."))
    rows = [
        (
            str(row.get("what")),
            absent("not reported") if row.get("value") is None else _amount(row.get("value")),
            str(row.get("unit") or ""),
            str(row.get("note") or ""),
        )
        for row in view.data.cost
    ]
    return _section("cost", "Cost", table(("what", "amount", "unit", "note"), rows, numeric=".n.."))


def _amount(value: object) -> Html:
    found = number(value)
    if found is None:
        return esc(value, 80)
    return (
        esc(f"{found:,.0f}") if found == int(found) else esc(f"{found:,.2f}" if abs(found) >= 0.1 else f"{found:.3g}")
    )


def reproduce_section(view: View) -> Html:
    """The command, the identities and everything the run was made with."""
    data = view.data
    command = (
        f'<pre class="command">{esc(data.command, 4000)}</pre>'
        if data.command
        else paragraphs("No command was recorded.")
    )
    identities = [("reference", data.reference)]
    identities += [("candidate shown", data.focus)] if data.focus else []
    identities += [(f"shortlisted {view.short(name)}", name) for name in data.shortlist if name != data.focus]
    plan_hash = next((row.get("plan_hash") or row.get("plan") for row in data.verdicts), None)
    identities += [("plan", str(plan_hash))] if plan_hash else []
    rows = [(name, Html(f"<code>{esc(value, 200)}</code>")) for name, value in identities]
    facts = [(name, esc(value, 300)) for name, value in _flat(data.manifest) if _worth_showing(name)]
    manifest = json.dumps(data.manifest, indent=2, sort_keys=True, default=str)
    parts = [command, table(("identity", "sha256 or name"), rows, classes="facts")]
    if data.sizes:
        columns = list(dict.fromkeys(key for row in data.sizes for key in row))[:12]
        sizes = [[_said(row.get(column)) for column in columns] for row in data.sizes]
        parts.append(table(columns, sizes, caption="Sizes"))
    if facts:
        parts.append(details("Versions, hashes and hardware", table(("what", "value"), facts, classes="facts")))
    if data.plan is not None:
        plan = json.dumps(data.plan, indent=2, sort_keys=True, default=str)
        parts.append(details("The predeclared plan", Html(f"<pre>{esc(plan, view.limits.code)}</pre>")))
    if data.manifest:
        parts.append(details("The whole manifest", Html(f"<pre>{esc(manifest, view.limits.code)}</pre>")))
        parts.append(f'<p class="data-line">Data: {json_link("manifest.json", data.manifest, view.limits)}</p>')
    return _section("reproduce", "How to do it again", *parts)


def _flat(value: object, prefix: str = "") -> list[tuple[str, object]]:
    if isinstance(value, Mapping):
        return [
            item for key, inner in value.items() for item in _flat(inner, f"{prefix}.{key}" if prefix else str(key))
        ]
    return [(prefix, "not recorded" if value is None else value)]


def _worth_showing(name: str) -> bool:
    """Facts about how the run was made; the configuration stands in the manifest below."""
    return not name.startswith(("config.", "ladder.", "proposer.")) and len(name) < 120


def notes_section(view: View) -> Html:
    """What a reader must know."""
    if not view.data.notes:
        return Html("")
    return _section("notes", "Notes", paragraphs(*view.data.notes[:100]))

"""The verdict in words, then what it rests on: the top of the page."""

from __future__ import annotations

from collections.abc import Callable

from analysis.markup import Html, Row, absent, csv_link, esc, number, paragraphs, shown, table, when
from analysis.report_view import View
from analysis.svg_figure import svg_text
from analysis.visualizations import DifferenceRow, EffectRow, forest_plot, paired_differences

_SIGNS = {
    "promoted": "\N{CHECK MARK} promoted",
    "not promoted": "\N{EN DASH} not promoted",
    "undecided": "? undecided",
    "rejected": "\N{MULTIPLICATION X} rejected",
    "withheld": "! withheld",
}


def _plural(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def headline(view: View) -> str:
    """The outcome of the run in one sentence."""
    data = view.data
    verdicts = data.verdicts
    if not verdicts:
        if data.state == "running":
            return "No verdict yet: the run is still going."
        if data.state == "interrupted":
            return "No verdict: the run was interrupted before its confirmation was complete."
        return "No candidate was confirmed, so nothing is promoted."
    wrong = [str(row.get("name")) for row in data.controls if row.get("holds") is False]
    if wrong:
        return (
            f"Verdict withheld: this set-up misranked {_plural(len(wrong), 'control', 'controls')}, {', '.join(wrong)}."
        )
    promoted, n = len(data.promoted), len(verdicts)
    if promoted:
        if n == 1:
            return "The candidate is better than the reference, confirmed on fresh seeds."
        verb = "is" if promoted == 1 else "are"
        return f"{promoted} of {n} candidates {verb} better than the reference, confirmed on fresh seeds."
    undecided = sum(row.get("decision") == "undecided" for row in verdicts)
    if undecided:
        verb = "is" if undecided == 1 else "are"
        return f"No candidate is shown to be better than the reference; {undecided} of {n} {verb} undecided."
    return "No candidate is better than the reference."


def verdict_section(view: View) -> Html:
    """The headline and one card for each shortlisted candidate."""
    cards = [_card(view, row) for row in view.data.verdicts]
    if not cards:
        cards = [_pending(view, candidate) for candidate in view.data.shortlist]
    return Html(
        f'<section class="verdict" id="verdict" aria-label="Verdict"><p class="headline">{esc(headline(view))}</p>'
        f"{''.join(cards)}</section>"
    )


def _card(view: View, verdict: Row) -> Html:
    decision = str(verdict.get("decision"))
    candidate = verdict.get("candidate")
    evidence = view.evidence(verdict)
    changes = view.changes(candidate)
    kind = decision.replace(" ", "-") if decision in _SIGNS else "pending"
    facts: list[tuple[str, Html]] = []
    if number(evidence.get("mean_difference")) is not None:
        percent = 100 * (number(evidence.get("confidence")) or 0.0)
        facts = [
            ("mean loss difference", Html(f"{shown(evidence.get('mean_difference'), '+.4f')} nats")),
            (f"{percent:.4g} % interval", _interval(evidence)),
            ("p, corrected", shown(evidence.get("p_holm"), ".2g")),
            ("effect size d_z", shown(evidence.get("d_z"), ".2f", "no spread")),
            ("parameters", _ratio(evidence.get("parameter_ratio"))),
            ("CPU time", _ratio(evidence.get("cpu_seconds_ratio"))),
        ]
    listed = "".join(f"<div><dt>{esc(name)}</dt><dd>{value}</dd></div>" for name, value in facts)
    badge = esc(_SIGNS.get(decision, decision), 40)
    sentence = esc(verdict.get("sentence") or "No reason recorded.", 2000)
    what = f'<p class="what">What it changes: {esc(changes)}</p>' if changes else ""
    return Html(
        f'<article class="card {kind}"><p><span class="badge">{badge}</span><strong>{view.name(candidate)}</strong></p>'
        f'<p class="sentence">{sentence}</p>{what}'
        + (f'<dl class="facts">{listed}</dl>' if listed else "")
        + "</article>"
    )


def _pending(view: View, candidate: str) -> Html:
    return Html(
        f'<article class="card pending"><p><span class="badge">not judged</span><strong>{view.name(candidate)}</strong>'
        '</p><p class="sentence">It is on the predeclared shortlist; its confirmation is not complete.</p></article>'
    )


def _ratio(value: object) -> Html:
    return Html(f"{shown(value, '.3f')} \N{MULTIPLICATION SIGN}") if number(value) is not None else absent()


def evidence_section(view: View) -> Html:
    """The table behind the verdicts, every paired difference, the effect at each size, and the plan."""
    if not view.data.verdicts and not view.data.confirmation:
        return Html("")
    parts = ["<h2>Evidence</h2>", _plan_words(view)]
    if view.data.verdicts:
        parts.append(_evidence_table(view))
    parts.append(_difference_figure(view))
    parts.append(_forest(view))
    return Html(f'<section id="evidence">{"".join(parts)}</section>')


def _plan_words(view: View) -> Html:
    plan = view.data.plan
    if plan is None:
        return Html("")
    seeds, sizes = list(plan.get("seeds") or ()), list(plan.get("sizes") or ())
    opened = view.data.seal_opened
    return paragraphs(
        f"Declared before the sealed test split was opened{f' ({when(opened)})' if opened else ''}: "
        f"{_plural(len(plan.get('shortlist') or ()), 'candidate', 'candidates')} against the reference, "
        f"{_plural(len(seeds), 'fresh seed', 'fresh seeds')}"
        + (f" ({seeds[0]} to {seeds[-1]})" if seeds else "")
        + f", {_plural(len(sizes), 'size', 'sizes')} ({', '.join(str(size) for size in sizes)})"
        + (f", level {plan['alpha']}" if "alpha" in plan else "")
        + (f", least useful gain {plan['least_effect']} nats" if "least_effect" in plan else "")
        + ". Same seed means same initial weights where shapes agree and same batches, so losses are compared in pairs."
    )


def _evidence_table(view: View) -> Html:
    """One column a candidate, so that it stays readable on a phone."""
    lines: list[tuple[str, Callable[[Row], Html]]] = [
        ("mean loss difference, nats", lambda e: shown(e.get("mean_difference"), "+.4f")),
        ("interval, nats", _interval),
        ("p (paired t, Holm)", lambda e: shown(e.get("p_holm"), ".2g")),
        ("p (exact sign flip)", lambda e: shown(e.get("p_sign_flip"), ".2g")),
        ("effect size d_z", lambda e: shown(e.get("d_z"), ".2f")),
        ("P(better)", lambda e: shown(e.get("probability_better"), ".2f")),
        ("paired seeds", lambda e: shown(e.get("n_pairs"), ".0f")),
        ("parameters, relative", lambda e: shown(e.get("parameter_ratio"), ".3f")),
        ("FLOPs, relative", lambda e: shown(e.get("flops_ratio"), ".3f")),
        ("CPU time, relative", lambda e: shown(e.get("cpu_seconds_ratio"), ".3f")),
        ("peak memory, relative", lambda e: shown(e.get("peak_memory_ratio"), ".3f")),
    ]
    verdicts = view.data.verdicts[:8]
    evidence = [view.evidence(verdict) for verdict in verdicts]
    rows: list[list[object]] = [["decision", *(str(verdict.get("decision")) for verdict in verdicts)]]
    rows += [[name, *(read(found) for found in evidence)] for name, read in lines]
    head = ["", *(view.name(verdict.get("candidate")) for verdict in verdicts)]
    note = "" if len(verdicts) == len(view.data.verdicts) else f" The first {len(verdicts)} candidates are shown."
    caption = (
        "Negative differences are better. Tests are one-sided; P(better) is the chance of a lower loss in a fresh "
        f"pair; costs are relative to the reference's.{note}"
    )
    return table(head, rows, caption=caption, classes="evidence", numeric="." + "n" * len(verdicts))


def _interval(evidence: Row) -> Html:
    if number(evidence.get("low")) is None or number(evidence.get("high")) is None:
        return absent()
    return Html(f"{shown(evidence['low'], '+.4f')} to {shown(evidence['high'], '+.4f')}")


def _difference_figure(view: View) -> Html:
    rows, raw = [], []
    for candidate in view.arms[1:]:
        per_size = {size: view.differences(candidate, size) for size in view.size_names}
        per_size = {size: found for size, found in per_size.items() if found}
        raw += [
            {"candidate": candidate, "size": size, "seed": seed, "difference": value}
            for size, found in per_size.items()
            for seed, value in found.items()
        ]
        shared = set.intersection(*(set(found) for found in per_size.values())) if per_size else set()
        means = [sum(found[seed] for found in per_size.values()) / len(per_size) for seed in sorted(shared, key=str)]
        verdict = next((row for row in view.data.verdicts if row.get("candidate") == candidate), {})
        evidence = view.evidence(verdict)
        if means:
            rows.append(
                DifferenceRow(
                    label=view.short(candidate),
                    differences=means,
                    mean=number(evidence.get("mean_difference")),
                    low=number(evidence.get("low")),
                    high=number(evidence.get("high")),
                    series=view.series(candidate),
                )
            )
    if not rows:
        return paragraphs("No complete pair of confirmation runs was recorded, so there is nothing to draw.")
    figure = paired_differences(rows, least_effect=number((view.data.plan or {}).get("least_effect")))
    label = f"Paired loss differences of {', '.join(row.label for row in rows)} to the reference, one dot a seed"
    link = csv_link("paired_differences.csv", raw, ("candidate", "size", "seed", "difference"), view.limits)
    open_words = "" if view.data.verdicts else " The confirmation is not complete: this is no verdict."
    return Html(
        f"<figure>{svg_text(figure, name='differences', label=label)}<figcaption>Each dot is one fresh seed: the "
        "candidate's test loss minus the reference's, averaged over the sizes that were run. The diamond is the mean, "
        f'the bar its interval.{open_words}</figcaption><p class="data-line">Data: {link}</p></figure>'
    )


def _forest(view: View) -> Html:
    drawn, raw = [], []
    for place, verdict in enumerate(view.data.verdicts[:8]):
        evidence = view.evidence(verdict)
        mean = number(evidence.get("mean_difference"))
        effects = [row for row in evidence.get("per_size") or () if number(row.get("mean_difference")) is not None]
        if mean is None or not effects:
            continue
        name = view.short(verdict.get("candidate"))
        rows = [
            EffectRow(
                label="all sizes",
                mean=mean,
                low=number(evidence.get("low")),
                high=number(evidence.get("high")),
                summary=True,
            ),
            *(
                EffectRow(
                    label=str(row.get("size")),
                    mean=float(row["mean_difference"]),
                    low=number(row.get("low")),
                    high=number(row.get("high")),
                )
                for row in effects[:12]
            ),
        ]
        raw += [{"candidate": verdict.get("candidate"), **row} for row in effects]
        series = view.series(verdict.get("candidate"))
        figure = forest_plot(rows, least_effect=number(evidence.get("least_effect")), series=series or 1)
        svg = svg_text(figure, name=f"forest-{place}", label=f"Effect of {name} at each size with its interval")
        drawn.append(f"<figure><h3>{view.name(verdict.get('candidate'))}, size by size</h3>{svg}</figure>")
    if not drawn:
        return Html("")
    columns = ("candidate", "size", "mean_difference", "low", "high", "p_t", "d_z", "parameter_ratio")
    link = csv_link("effects_by_size.csv", raw, columns, view.limits)
    return Html(
        f'<div class="pair">{"".join(drawn)}</div><p class="data-line">The row "all sizes" decides; single sizes are '
        f"shown to see where a gain comes from and are not corrected for looking at several. Data: {link}</p>"
    )

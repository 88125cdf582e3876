"""Who proposed and what came of it, what each ingredient of the prompt was worth, and the control arms."""

from __future__ import annotations

from analysis.markup import Html, absent, details, esc, paragraphs, shown, table
from analysis.report_view import View


def proposers_section(view: View) -> Html:
    """Rates, gains and cost of every proposer; then the ingredients that were withheld."""
    data = view.data
    if not data.proposers:
        return Html("")
    rows = [
        (
            esc(row["proposer"], 200),
            str(row["asked"]),
            _share(row["valid"]),
            _share(row["passed"]),
            _share(row["improved"]),
            shown(row["mean"], "+.4f"),
            shown(row["best"], "+.4f"),
            shown(row["tokens"], ",.0f", "not reported"),
            shown(row["dollars"], ".4f", "not reported"),
            shown(row["seconds"], ".1f"),
        )
        for row in data.proposers
    ]
    head = (
        "proposer", "asked", "valid replies", "pass the guards", "improve", "mean gain", "best gain", "tokens",
        "dollars", "seconds",
    )  # fmt: skip
    parts: list[str] = [
        paragraphs(
            "A reply is valid when it holds a block; the guards are passed by a share of new valid replies; an "
            "improvement is a candidate ahead of the reference in the search, which chance alone brings to half of "
            "harmless changes. Shares have 95 % intervals (Wilson); gains are nats a token, positive is better."
        ),
        table(head, rows, classes="sortable", numeric=".nnnnnnnnn"),
    ]
    if data.ended_by:
        parts.append(paragraphs(data.ended_by))
    if data.guidance:
        ingredients = [
            (
                esc(row["ingredient"]),
                f"{row['n_with']} / {row['n_without']}",
                shown(row["worth"], "+.4f", "too few"),
                absent("too few") if row["low"] is None else f"{row['low']:+.4f} to {row['high']:+.4f}",
                esc(row["sentence"]),
            )
            for row in data.guidance
        ]
        text = "One ingredient was left out of a share of the prompts. Its worth is the mean gain of candidates with "
        body = paragraphs(text + "all of them minus that without it, with Welch's 95 % interval.") + table(
            ("ingredient", "candidates with / without", "worth, nats", "interval", "in words"), ingredients
        )
        parts.append(details("What the ingredients of the prompt were worth", Html(body)))
    return Html(f'<section id="proposers"><h2>Who proposed, and what came of it</h2>{"".join(parts)}</section>')


def arms_section(view: View) -> Html:
    """The control arms, and in words whether guidance helped."""
    data = view.data
    if not data.arms:
        return Html("")
    rows = [
        (
            esc(row["arm"]),
            str(row["seeds"]),
            shown(row["gain"], "+.4f"),
            absent("too few") if row["low"] is None else f"{row['low']:+.4f} to {row['high']:+.4f}",
            shown(row["guidance"], "+.4f", "-"),
            "-" if row["guidance_low"] is None else f"{row['guidance_low']:+.4f} to {row['guidance_high']:+.4f}",
            esc(row["words"]),
        )
        for row in data.arms
    ]
    head = ("arm", "fresh seeds", "gain, nats", "95 % interval", "evolved minus it", "95 % interval", "in words")
    return Html(
        '<section id="arms"><h2>Did guidance help?</h2>'
        + paragraphs(
            data.arms_sentence or "",
            "Every arm had the training budget of the search. The best of each ran on fresh paired seeds at the sizes "
            "of the search; gains are over the start program at the ladder's learning rates.",
        )
        + table(head, rows, numeric=".nnnnn.")
        + "</section>"
    )


def _share(rate: object) -> Html:
    if rate is None:
        return absent("none")
    low, high = getattr(rate, "low", 0.0), getattr(rate, "high", 1.0)
    successes, trials = getattr(rate, "successes", 0), getattr(rate, "trials", 0)
    return esc(f"{successes} of {trials} ({100 * low:.0f}-{100 * high:.0f} %)")

"""Gain of every arm on fresh paired seeds, and what guidance was worth: evolved minus control, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.paired_tests import paired_t

Row = dict[str, Any]
WORDS = {
    "evolved": "guided evolution",
    "best_of_n": "best of N from the start program",
    "random_operators": "random operators without selection",
    "tuning": "tuning the start program only",
}


def arm_rows(gains: Mapping[str, Sequence[float | None]], evolved: str = "evolved") -> list[Row]:
    """One row an arm.

    Args:
        gains: arm -> gain over the start program on each fresh seed, nats, the same seeds in the same order;
            None where a run failed.
        evolved: the arm that the others are compared with.

    Returns:
        Rows `arm`, `seeds`, `gain`, `low`, `high` (95 % t interval) and, for controls, `guidance`, `guidance_low`,
        `guidance_high`: evolved minus control on the same seeds. What too few seeds cannot say is
        None; `words` says it in words.
    """
    rows = []
    for arm, values in sorted(gains.items(), key=lambda item: (item[0] != evolved, item[0])):
        mean, low, high, seeds = _interval(values)
        row: Row = {"arm": WORDS.get(arm, arm), "seeds": seeds, "gain": mean, "low": low, "high": high}
        row |= {"guidance": None, "guidance_low": None, "guidance_high": None}
        if arm != evolved and evolved in gains:
            pairs = zip(gains[evolved], values, strict=True)
            differences = [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
            row["guidance"], row["guidance_low"], row["guidance_high"], _ = _interval(differences)
        row["words"] = _words(row)
        rows.append(row)
    return rows


def guidance_sentence(rows: Sequence[Row], least_effect: float) -> str:
    """In words, whether guidance helped, against the control that did best."""
    controls = [row for row in rows if row["guidance"] is not None]
    if not controls:
        return "No control arm could be compared with the evolved candidate, so nothing is said of the guidance."
    rival = max(controls, key=lambda row: row["gain"])
    size = f"{rival['guidance']:+.4f} nats"
    low, high = rival["guidance_low"], rival["guidance_high"]
    if low is None:
        return f"Against {rival['arm']}, the best control, evolution gained {size}, on too few seeds for an interval."
    interval = f"{size} (95 % interval {low:+.4f} to {high:+.4f})"
    if low > 0:
        return f"Guidance helped: evolution beat the best control, {rival['arm']}, by {interval} at equal budget."
    if high < 0:
        return f"Guidance did not pay: {rival['arm']} beat evolution at equal budget; evolution minus it: {interval}."
    if high < least_effect:
        return f"Guidance did not help: against {rival['arm']} at equal budget it brought {interval}."
    return f"Undecided: against {rival['arm']} at equal budget guidance brought {interval}; more seeds would tell."


def _words(row: Row) -> str:
    """What a control says of guidance, in two words or so."""
    if row["guidance"] is None:
        return ""
    if row["guidance_low"] is None:
        return "too few seeds"
    if row["guidance_low"] > 0:
        return "evolution is better"
    return "evolution is worse" if row["guidance_high"] < 0 else "undecided"


def _interval(values: Sequence[float | None]) -> tuple[float | None, float | None, float | None, int]:
    known = [value for value in values if value is not None]
    if not known:
        return None, None, None, 0
    if len(known) == 1:
        return known[0], None, None, 1
    test = paired_t(known)
    return test.mean, test.low, test.high, test.n

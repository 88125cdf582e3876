"""What proposers' replies came to, and what each ingredient of the prompt was worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from analysis.calibration import wilson_interval

Row = dict[str, Any]
PARSED = ("accepted", "duplicate", "rejected")
"""Statuses of a reply that held a block."""
INGREDIENTS = {
    "failures": "notes of recent failures",
    "inspirations": "other good programs",
    "curves": "measured losses",
}


def proposer_rows(proposals: Sequence[Row]) -> list[Row]:
    """One row a proposer.

    Args:
        proposals: rows `proposer`, `status`, `prompt_tokens`, `completion_tokens`, `dollars`, `seconds` and, of a
            measured candidate, `gain` (nats; None for none).

    Returns:
        Rows `proposer`, `asked`, the shares `valid` (of replies asked for), `passed` (the guards, of new valid
        replies) and `improved` (of measured candidates), each a `Rate` or None, `best` and `mean` gain, `tokens`,
        `dollars` (None: not reported), `unreported` calls and `seconds`.
    """
    rows = []
    for name in dict.fromkeys(str(row["proposer"]) for row in proposals):
        own = [row for row in proposals if str(row["proposer"]) == name]
        valid = [row for row in own if row["status"] in PARSED]
        fresh = [row for row in valid if row["status"] != "duplicate"]
        passed = [row for row in fresh if row["status"] == "accepted"]
        gains = [float(row["gain"]) for row in passed if row.get("gain") is not None]
        used = [row for row in own if row.get("prompt_tokens") is not None and row.get("completion_tokens") is not None]
        paid = [float(row["dollars"]) for row in own if row.get("dollars") is not None]
        rows.append(
            {
                "proposer": name,
                "asked": len(own),
                "valid": _rate(len(valid), len(own)),
                "passed": _rate(len(passed), len(fresh)),
                "improved": _rate(sum(gain > 0 for gain in gains), len(gains)),
                "best": max(gains, default=None),
                "mean": math.fsum(gains) / len(gains) if gains else None,
                "tokens": sum(row["prompt_tokens"] + row["completion_tokens"] for row in used) if used else None,
                "unreported": len(own) - len(used),
                "dollars": math.fsum(paid) if paid else None,
                "seconds": math.fsum(float(row.get("seconds") or 0.0) for row in own),
            }
        )
    return rows


def guidance_rows(proposals: Sequence[Row]) -> list[Row]:
    """What each withheld ingredient is worth: mean gain with everything minus mean gain without it.

    Args:
        proposals: rows `withheld` (None: nothing was) and `gain` of measured candidates of proposers that are LLMs.

    Returns:
        Rows `ingredient`, `n_with`, `n_without`, `worth`, `low`, `high` (95 %, Welch) and `sentence`; worth is None
        where fewer than two candidates stand on a side.
    """
    complete = [float(row["gain"]) for row in proposals if row.get("withheld") is None and row.get("gain") is not None]
    rows = []
    for ingredient, words in INGREDIENTS.items():
        bare = [
            float(row["gain"]) for row in proposals if row.get("withheld") == ingredient and row.get("gain") is not None
        ]
        worth, low, high = _welch(complete, bare)
        rows.append(
            {
                "ingredient": words,
                "n_with": len(complete),
                "n_without": len(bare),
                "worth": worth,
                "low": low,
                "high": high,
                "sentence": _words(words, worth, low, high),
            }
        )
    return rows


def _rate(successes: int, trials: int) -> Any:
    return wilson_interval(successes, trials) if trials else None


def _welch(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """Difference of means with Welch's 95 % interval; None with fewer than two values on a side."""
    if len(ours) < 2 or len(theirs) < 2:
        return None, None, None
    from scipy.stats import ttest_ind

    difference = math.fsum(ours) / len(ours) - math.fsum(theirs) / len(theirs)
    if len({*ours}) == 1 and len({*theirs}) == 1:
        return difference, difference, difference
    interval = ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    return difference, float(interval.low), float(interval.high)


def _words(words: str, worth: float | None, low: float | None, high: float | None) -> str:
    if worth is None or low is None or high is None:
        return f"{words}: too few candidates to tell"
    if low > 0:
        return f"{words} helped"
    return f"{words} hurt" if high < 0 else f"{words}: undecided, the interval holds zero"

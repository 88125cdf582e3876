"""Rates of proposers and the worth of withheld ingredients, on rows whose answer is known."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.proposal_rates import guidance_rows, proposer_rows


def row(
    status: str = "accepted", gain: float | None = None, withheld: str | None = None, **more: Any
) -> dict[str, Any]:
    base = {"proposer": "p", "prompt_tokens": 10, "completion_tokens": 5, "dollars": None, "seconds": 2.0}
    return base | {"status": status, "gain": gain, "withheld": withheld} | more


def test_rates_have_the_right_denominators() -> None:
    rows = [
        row(gain=0.1),
        row(gain=-0.1),
        row("duplicate"),
        row("rejected"),
        row("unparsable"),
        row("endpoint_error", prompt_tokens=None),
        row(gain=0.3, proposer="q", dollars=0.5),
    ]
    first, second = proposer_rows(rows)
    assert (first["valid"].successes, first["valid"].trials) == (4, 6)
    assert (first["passed"].successes, first["passed"].trials) == (2, 3)
    assert (first["improved"].successes, first["improved"].trials) == (1, 2)
    assert first["dollars"] is None
    assert first["tokens"] == 75
    assert first["unreported"] == 1
    assert second["dollars"] == 0.5
    assert second["best"] == 0.3


def test_nothing_measured_is_none_and_not_zero() -> None:
    (only,) = proposer_rows([row("endpoint_error", prompt_tokens=None)])
    assert only["passed"] is None
    assert only["improved"] is None
    assert only["mean"] is None
    assert only["tokens"] is None


def test_an_ingredient_that_helps_is_found_and_one_that_does_nothing_is_undecided() -> None:
    complete = [row(gain=0.10 + 0.01 * (i % 3)) for i in range(12)]
    without_curves = [row(gain=0.01 * (i % 3), withheld="curves") for i in range(12)]
    without_notes = [row(gain=0.10 + 0.01 * (i % 3), withheld="failures") for i in range(12)]
    notes, others, curves = guidance_rows([*complete, *without_curves, *without_notes])
    assert curves["worth"] == pytest.approx(0.1)
    assert curves["low"] > 0
    assert "helped" in curves["sentence"]
    assert notes["low"] < 0 < notes["high"]
    assert "undecided" in notes["sentence"]
    assert others["worth"] is None
    assert "too few" in others["sentence"]

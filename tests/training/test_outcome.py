from __future__ import annotations

import json

import pytest

from training.outcome import (
    Completed,
    Crashed,
    Diverged,
    Outcome,
    OutOfMemory,
    Rejected,
    TimedOut,
    explain,
    outcome_from_json,
)

COMPLETED = Completed(
    val_loss=3.5,
    curve=[(200, 4.0, 4.1), (400, 3.6, 3.5)],
    n_parameters=24_896,
    tokens=409_600,
    flops=10**12,
    cpu_seconds=5.5,
    seconds=6.0,
    peak_memory_bytes=2**28,
)
OUTCOMES: list[tuple[Outcome, str, list[str]]] = [
    (COMPLETED, "completed", ["3.5000", "24,896", "at step 400"]),
    (
        Rejected(guard="causality", reason="it sees the future", evidence={"position": 7}),
        "rejected",
        ["causality", "position: 7"],
    ),
    (
        Crashed(error="TypeError: bad", detail="line 9, in mix\n    y = q + 'a'"),
        "crashed",
        ["TypeError: bad", "y = q + 'a'"],
    ),
    (Diverged(step=40, reason="the training loss is nan"), "diverged", ["step 40", "nan"]),
    (TimedOut(limit_seconds=60), "timed_out", ["60 s"]),
    (OutOfMemory(limit_bytes=4 * 2**30), "out_of_memory", ["4.0 GiB"]),
    (OutOfMemory(), "out_of_memory", ["memory"]),
]


@pytest.mark.parametrize(("outcome", "status", "words"), OUTCOMES)
def test_json_round_trip_keeps_the_type(outcome: Outcome, status: str, words: list[str]) -> None:
    value = json.loads(json.dumps(outcome.model_dump(mode="json"), allow_nan=False))
    assert value["status"] == status
    again = outcome_from_json(value)
    assert type(again) is type(outcome)
    assert again == outcome


@pytest.mark.parametrize(("outcome", "status", "words"), OUTCOMES)
def test_explanation_says_what_happened(outcome: Outcome, status: str, words: list[str]) -> None:
    text = explain(outcome)
    for word in words:
        assert word in text
    assert "\n\n" not in text


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_no_outcome(bad: float) -> None:
    value = COMPLETED.model_dump()
    with pytest.raises(ValueError, match="finite"):
        Completed(**{**value, "val_loss": bad})
    with pytest.raises(ValueError, match="finite"):
        Completed(**{**value, "curve": [(1, 2.0, bad)]})


@pytest.mark.parametrize(
    "value", [{"status": "great"}, {"val_loss": 1.0}, {"status": "timed_out", "limit_seconds": 1, "x": 2}]
)
def test_what_is_no_outcome_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        outcome_from_json(value)

"""Arms compared on the same seeds, and what is said of guidance."""

from __future__ import annotations

import pytest

from analysis.arm_gains import arm_rows, guidance_sentence


def test_intervals_are_paired_over_seeds() -> None:
    rows = arm_rows({"evolved": [0.05, 0.06, 0.04, 0.05], "best_of_n": [0.01, 0.02, 0.0, 0.01], "tuning": [None] * 4})
    evolved, best_of_n, tuning = rows
    assert evolved["gain"] == pytest.approx(0.05)
    assert evolved["guidance"] is None
    assert best_of_n["guidance"] == pytest.approx(0.04)
    # The seeds' common movement cancels in the pair: the difference is constant, the gains are not.
    assert best_of_n["guidance_low"] == pytest.approx(0.04)
    assert best_of_n["low"] < 0.01 < best_of_n["high"]
    assert tuning["gain"] is None
    assert tuning["seeds"] == 0
    assert [row["words"] for row in rows] == ["", "evolution is better", ""]


@pytest.mark.parametrize(
    ("control", "word"),
    [
        ([0.0, 0.01, 0.0, 0.01], "Guidance helped"),
        ([0.2, 0.21, 0.2, 0.22], "Guidance did not pay"),
        ([0.10, 0.101, 0.10, 0.099], "Guidance did not help"),
        ([0.0, 0.2, 0.05, 0.12], "Undecided"),
    ],
)
def test_the_sentence_names_the_best_control(control: list[float], word: str) -> None:
    rows = arm_rows({"evolved": [0.1, 0.1, 0.1, 0.1], "random_operators": control, "tuning": [-1.0, -1.1, -1.0, -1.1]})
    sentence = guidance_sentence(rows, least_effect=0.01)
    assert sentence.startswith(word)
    assert "random operators" in sentence


def test_without_a_pair_nothing_is_claimed() -> None:
    assert guidance_sentence(arm_rows({"evolved": [0.1, 0.2]}), 0.01).startswith("No control arm")
    one = arm_rows({"evolved": [0.1, None], "tuning": [0.0, None]})
    assert "too few seeds" in guidance_sentence(one, 0.01)

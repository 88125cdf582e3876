"""Search fitness from paired losses."""

import pytest

from evolution.fitness import combined_score, paired_gain

REFERENCE = {("d32", 1): 3.5, ("d32", 2): 3.6, ("d48", 1): 3.0}


def test_gain_is_the_mean_over_sizes_of_paired_means() -> None:
    candidate = {("d32", 1): 3.4, ("d32", 2): 3.6, ("d48", 1): 3.1}
    assert paired_gain(REFERENCE, candidate) == pytest.approx((0.05 - 0.1) / 2)


def test_reference_against_itself_is_exactly_even() -> None:
    assert paired_gain(REFERENCE, REFERENCE) == 0.0
    assert combined_score(REFERENCE, REFERENCE) == 1.0


def test_score_is_finite_positive_and_above_one_when_better() -> None:
    assert combined_score(REFERENCE, {("d32", 1): 3.0}) == pytest.approx(3.5 / 3.0)
    assert 0 < combined_score(REFERENCE, {("d32", 1): 1e9}) < 1
    assert combined_score(REFERENCE, {("d32", 1): 0.0}) == 1e3


def test_only_pairs_are_compared() -> None:
    with pytest.raises(ValueError, match="no reference run at size d80, seed 1"):
        paired_gain(REFERENCE, {("d80", 1): 3.0})
    with pytest.raises(ValueError, match="no completed run"):
        paired_gain(REFERENCE, {})

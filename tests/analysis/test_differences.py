"""What enters every test: nothing is dropped, and shapes without spread are named."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.differences import checked_differences, paired_differences, spread_of


def test_differences_are_candidate_minus_reference():
    assert paired_differences([1.0, 2.0], [3.0, 1.0]).tolist() == [-2.0, 1.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_an_error_in_either_arm(bad):
    with pytest.raises(ValueError, match="every candidate value must be finite"):
        paired_differences([1.0, bad], [1.0, 2.0])
    with pytest.raises(ValueError, match="every reference value must be finite"):
        paired_differences([1.0, 2.0], [1.0, bad])
    with pytest.raises(ValueError, match="pair 1 is"):
        checked_differences([0.0, bad, 1.0])


def test_arms_of_different_length_are_an_error():
    with pytest.raises(ValueError, match=r"candidate has shape \(2,\), reference \(3,\)"):
        paired_differences([1, 2], [1, 2, 3])


def test_a_matrix_and_too_few_pairs_are_errors():
    with pytest.raises(ValueError, match="one-dimensional"):
        checked_differences(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"1 paired difference\(s\) given; at least 2"):
        checked_differences([0.1])


def test_the_input_is_copied():
    given = np.array([1.0, 2.0])
    checked = checked_differences(given)
    checked[0] = 9.0
    assert given[0] == 1.0


@pytest.mark.parametrize(
    ("values", "spread"),
    [
        ([0.0, 0.0], "exact null"),
        ([0.3, 0.3, 0.3], "constant"),
        ([0.3, 0.3, 0.31], "ordinary"),
        ([0.0, -0.0], "exact null"),
    ],
)
def test_spread_is_named(values, spread):
    assert spread_of(checked_differences(values)) == spread

"""Holm and Benjamini-Hochberg against statsmodels, the step-wise definitions and their error rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from analysis.multiplicity import benjamini_hochberg, holm

FAMILIES = [
    [0.01],
    [0.01, 0.04, 0.03, 0.005],
    [1.0, 1.0, 0.0],
    [0.02, 0.02, 0.02, 0.5],
    [0.0001, 0.9, 0.0002, 0.06, 0.04, 0.04],
    np.random.default_rng(1).uniform(size=50).tolist(),
    (np.random.default_rng(2).uniform(size=20) ** 4).tolist(),
]


@pytest.mark.parametrize("p_values", FAMILIES)
def test_adjusted_values_equal_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert benjamini_hochberg(p_values) == pytest.approx(multipletests(p_values, method="fdr_bh")[1])


@pytest.mark.parametrize("p_values", FAMILIES)
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_rejections_equal_the_step_wise_procedures(p_values, alpha):
    order, m = np.argsort(p_values), len(p_values)
    holm_rejects, benjamini_rejects = np.zeros(m, bool), np.zeros(m, bool)
    for step, index in enumerate(order):
        if p_values[index] > alpha / (m - step):
            break
        holm_rejects[index] = True
    passing = [step for step, index in enumerate(order) if p_values[index] <= alpha * (step + 1) / m]
    if passing:
        benjamini_rejects[order[: max(passing) + 1]] = True
    assert ((holm(p_values) <= alpha) == holm_rejects).all()
    assert ((benjamini_hochberg(p_values) <= alpha) == benjamini_rejects).all()


def test_holm_holds_the_family_wise_rate_and_uncorrected_tests_do_not():
    rng, trials, m = np.random.default_rng(3), 2_000, 8
    draws = rng.uniform(size=(trials, m))
    corrected = np.mean([holm(row).min() < 0.05 for row in draws])
    uncorrected = np.mean(draws.min(axis=1) < 0.05)
    assert abs(corrected - (1 - (1 - 0.05 / m) ** m)) < 3 * math.sqrt(0.05 * 0.95 / trials)
    assert uncorrected > 0.3


@pytest.mark.parametrize("correct", [holm, benjamini_hochberg])
@pytest.mark.parametrize(
    ("p_values", "message"),
    [([], "non-empty"), ([0.1, 1.2], "got 1.2"), ([-0.1], "got -0.1"), ([math.nan], "got nan"), ([[0.1]], "shape")],
)
def test_what_is_not_a_p_value_is_an_error(correct, p_values, message):
    with pytest.raises(ValueError, match=message):
        correct(p_values)

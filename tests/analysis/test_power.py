"""Power against statsmodels, simulation and the numbers the project quotes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from analysis.paired_tests import paired_t
from analysis.power import least_detectable_effect, paired_power, pairs_needed

STATSMODELS_NAMES = {"two-sided": "two-sided", "less": "smaller", "greater": "larger"}


@pytest.mark.parametrize(("effect", "n"), [(0.5, 34), (-0.5, 10), (1.0, 6), (-2.0, 4), (0.0, 12), (0.2, 200)])
def test_power_equals_statsmodels(effect, n, alternative):
    for alpha in (0.01, 0.05):
        peer = TTestPower().power(effect, n, alpha, alternative=STATSMODELS_NAMES[alternative])
        assert paired_power(effect, n, alpha=alpha, alternative=alternative) == pytest.approx(peer, abs=1e-9)


def test_power_is_what_simulation_finds():
    rng, trials = np.random.default_rng(0), 1_500
    found = np.mean([paired_t(rng.normal(-1.2, 1, 6), alternative="less").p < 0.05 for _ in range(trials)])
    expected = paired_power(-1.2, 6, alternative="less")
    assert abs(found - expected) < 3 * math.sqrt(expected * (1 - expected) / trials)


def test_the_numbers_the_project_quotes():
    assert pairs_needed(0.5) == 34
    assert least_detectable_effect(10) < 1.0 < least_detectable_effect(9)


@pytest.mark.parametrize("effect", [0.1, 0.5, 1.0, 3.0, 50.0])
def test_pairs_needed_is_the_first_number_that_suffices(effect, alternative):
    signed = -effect if alternative == "less" else effect
    n = pairs_needed(signed, power=0.9, alpha=0.01, alternative=alternative)
    assert paired_power(signed, n, alpha=0.01, alternative=alternative) >= 0.9
    assert n == 2 or paired_power(signed, n - 1, alpha=0.01, alternative=alternative) < 0.9


@pytest.mark.parametrize("n", [2, 3, 6, 10, 100])
def test_the_least_detectable_effect_has_the_power_asked_for(n, alternative):
    effect = least_detectable_effect(n, power=0.8, alpha=0.05, alternative=alternative)
    signed = -effect if alternative == "less" else effect
    assert paired_power(signed, n, alternative=alternative) == pytest.approx(0.8, abs=1e-8)


def test_an_effect_of_nothing_or_of_the_wrong_sign_needs_more_pairs_than_there_are():
    assert pairs_needed(0.0) is None
    assert pairs_needed(0.5, alternative="less") is None
    assert paired_power(1e9, 5, alternative="less") == 0.0
    assert paired_power(-1e9, 5, alternative="less") == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_power(0.5, 1), "at least 2 pairs; got 1"),
        (lambda: paired_power(math.inf, 5), "effect must be finite"),
        (lambda: paired_power(0.5, 5, alpha=0), "alpha must lie strictly"),
        (lambda: pairs_needed(0.5, power=1.0), "power must lie strictly"),
        (lambda: least_detectable_effect(5, power=0.04), "power must be above alpha"),
        (lambda: paired_power(0.5, 5, alternative="smaller"), "unknown alternative 'smaller'"),
    ],
)
def test_bad_arguments_are_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()

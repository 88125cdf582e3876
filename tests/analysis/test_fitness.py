"""Fitness: positive is better, and the slope's trap is on record."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.fitness import FITNESS, extrapolated, fitness, paired_gain, slope

SIZES = np.array([0.5e6, 1e6, 2e6, 4e6])
BASE = 1.2 + 1.1 * (SIZES / 1e6) ** -0.34


def test_paired_gain_is_the_mean_gain_in_nats():
    assert paired_gain(BASE - 0.04, BASE) == pytest.approx(0.04)
    assert paired_gain([[1.0, 2.0], [3.0, 4.0]], [[1.5, 2.0], [3.0, 5.5]]) == pytest.approx(0.5)


def test_a_candidate_worse_at_every_size_can_have_the_better_slope_and_loses_by_paired_gain():
    worse = BASE + np.array([0.35, 0.25, 0.15, 0.05])
    assert (worse > BASE).all()
    assert slope(SIZES, worse) > slope(SIZES, BASE) > 0
    assert paired_gain(worse, BASE) < 0


def test_extrapolated_is_the_gain_at_the_target():
    better = 1.1 + 1.2 * (SIZES / 1e6) ** -0.34
    expected = (1.2 + 1.1 * 8**-0.34) - (1.1 + 1.2 * 8**-0.34)
    assert extrapolated(SIZES, better, BASE, target=8e6) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", FITNESS)
def test_every_fitness_prefers_a_law_that_is_better_in_every_way(name):
    better = 1.0 + 1.15 * (SIZES / 1e6) ** -0.4
    ours, theirs = (
        fitness(name, n_parameters=SIZES, candidate=losses, reference=BASE, target=8e6) for losses in (better, BASE)
    )
    assert ours > theirs


def test_names_shapes_and_targets_are_checked():
    arms = {"n_parameters": SIZES, "candidate": BASE, "reference": BASE}
    with pytest.raises(ValueError, match="unknown fitness 'paired_gains'; did you mean 'paired_gain'"):
        fitness("paired_gains", **arms)
    with pytest.raises(ValueError, match="needs a target size"):
        fitness("extrapolated", **arms)
    with pytest.raises(ValueError, match="must be paired"):
        paired_gain([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="must be paired"):
        extrapolated(SIZES, BASE[None], BASE, target=8e6)
    with pytest.raises(ValueError, match="must be finite"):
        paired_gain([math.nan], [1.0])
    with pytest.raises(ValueError, match="losses must have shape"):
        fitness("paired_gain", n_parameters=SIZES, candidate=[1.0], reference=[1.0])

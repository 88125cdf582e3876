"""Rank fidelity against counted pairs, and a sprinter that an early rung gets wrong."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from analysis.rank_fidelity import curve_table, kendall_tau, rank_fidelity


def counted_tau(a, b):
    """tau-b from its definition, pair by pair."""
    score = free_a = free_b = 0
    for i, j in itertools.combinations(range(len(a)), 2):
        score += np.sign(a[i] - a[j]) * np.sign(b[i] - b[j])
        free_a, free_b = free_a + (a[i] != a[j]), free_b + (b[i] != b[j])
    return score / math.sqrt(free_a * free_b)


@pytest.mark.parametrize("seed", range(6))
def test_tau_is_what_counting_pairs_gives(seed):
    a, b = np.random.default_rng(seed).integers(0, 6, size=(2, 9)).astype(float)
    assert kendall_tau(a, b) == pytest.approx(counted_tau(a, b))


def test_a_sprinter_lowers_the_early_rung_and_not_the_late_one():
    losses = [[4.33, 3.90, 3.55], [4.40, 3.81, 3.52], [4.41, 3.78, 3.43], [4.50, 3.95, 3.60]]
    result = rank_fidelity(losses, [200, 400, 800])
    assert [entry.rung for entry in result.rungs] == [200, 400]
    assert result.rungs[0].tau == pytest.approx(counted_tau([1, 2, 3, 4], [3, 2, 1, 4]))
    assert result.rungs[1].tau == 1.0
    assert (result.rungs[0].best_in_top_half, result.rungs[1].best_in_top_half) == (False, True)
    assert (result.ceiling, result.rungs[0].low, result.final_rung) == (None, None, 800)


def test_the_ceiling_falls_with_the_noise_between_seeds():
    rng = np.random.default_rng(0)
    truth = np.linspace(3.4, 3.6, 8)[None, :, None]
    ceilings = [
        rank_fidelity(truth + noise * rng.standard_normal((6, 8, 2)), [1, 2]).ceiling for noise in (0.001, 0.05, 1.0)
    ]
    assert ceilings[0] == pytest.approx(1.0)
    assert ceilings[0] > ceilings[1] > ceilings[2]


def test_intervals_come_from_the_generator_given():
    losses = np.random.default_rng(1).normal(size=(10, 3)).cumsum(axis=1)
    one = rank_fidelity(losses, [1, 2, 3], rng=np.random.default_rng(2), n_resamples=200)
    assert one == rank_fidelity(losses, [1, 2, 3], rng=np.random.default_rng(2), n_resamples=200)
    for entry in one.rungs:
        assert entry.low < entry.tau < entry.high


def test_curves_are_read_at_measured_steps_only():
    curves = {
        "a": [[[0, None, 6.0], [100, 3.0, 4.0], [200, 2.0, 3.5]], [[100, 3.0, 4.1], [200, 2.0, 3.6]]],
        "b": [[[100, 3.0, 4.2], [200, 2.0, 3.4]], [[100, 3.0, 4.3], [150, 2.5, None], [200, 2.0, 3.3]]],
    }
    table = curve_table(curves, [100, 200])
    assert table.shape == (2, 2, 2)
    assert table[1].tolist() == [[4.1, 3.6], [4.3, 3.3]]
    with pytest.raises(ValueError, match=r"'a', seed 0: no validation loss at step 150; measured at \[0, 100, 200\]"):
        curve_table(curves, [150])
    with pytest.raises(ValueError, match="same number of seeds"):
        curve_table({"a": curves["a"], "b": curves["b"][:1]}, [100])
    with pytest.raises(ValueError, match="no candidate"):
        curve_table({}, [100])


@pytest.mark.parametrize(
    ("losses", "rungs", "message"),
    [
        (np.zeros((2, 3)), [1, 2, 3], "at least 3 candidates"),
        (np.zeros((4, 1)), [1], "2 rungs"),
        (np.arange(8.0).reshape(4, 2), [2, 1], "rungs must rise"),
        (np.arange(8.0).reshape(4, 2), [1, 2, 3], "match the 2 columns"),
        ([[1.0, 2.0], [math.nan, 2.0], [1.0, 3.0]], [1, 2], "must be finite"),
        ([[1.0, 2.0], [1.0, 2.5], [1.0, 3.0]], [1, 2], "all candidates tie at rung 1"),
    ],
)
def test_bad_tables_are_errors(losses, rungs, message):
    with pytest.raises(ValueError, match=message):
        rank_fidelity(losses, rungs)

"""Always-valid tests: closed forms against integrals, and the error rate under peeking at every seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from analysis.paired_tests import paired_t
from analysis.sequential import sequential_sign, sequential_t


def test_the_e_value_is_the_likelihood_ratio_of_t_mixed_over_d_z(differences):
    result = sequential_t(differences, prior_sd=0.8)
    for n in range(2, len(differences) + 1):
        first = differences[:n]
        if np.ptp(first) == 0:
            continue
        t = first.mean() / (first.std(ddof=1) / math.sqrt(n))
        mixed, _ = integrate.quad(
            lambda d, n=n, t=t: stats.nct.pdf(t, n - 1, math.sqrt(n) * d) * stats.norm.pdf(d, 0, 0.8), -6, 6, limit=400
        )
        assert result.e_values[n - 1] == pytest.approx(mixed / stats.t.pdf(t, n - 1), rel=1e-5)


def test_the_confidence_sequence_holds_the_means_that_are_not_refused(differences):
    result = sequential_t(differences, alpha=0.1)
    for n in range(2, len(differences) + 1):
        low, high = result.low[n - 1], result.high[n - 1]
        if not math.isfinite(low):
            assert sequential_t(differences[:n] - 1e9, alpha=0.1).e_values[-1] < 10
            continue
        if np.ptp(differences[:n]) == 0:
            assert low == high == differences[0]
            continue
        for end in (low, high):
            assert sequential_t(differences[:n] - end, alpha=0.1).e_values[-1] == pytest.approx(10.0, rel=1e-6)


def test_peeking_after_every_seed_keeps_the_level_where_a_t_test_loses_it():
    rng, trials, horizon, alpha = np.random.default_rng(0), 400, 40, 0.05
    draws = rng.standard_normal((trials, horizon))
    wealth = np.mean([sequential_t(row, alpha=alpha).decided_at is not None for row in draws])
    signs = np.mean([sequential_sign(row, alpha=alpha).decided_at is not None for row in draws])
    naive = np.mean([any(paired_t(row[:n]).p < alpha for n in range(3, horizon + 1)) for row in draws])
    bound = alpha + 3 * math.sqrt(alpha * (1 - alpha) / trials)
    assert wealth <= bound
    assert signs <= bound
    assert naive > 2 * bound


def test_a_clear_effect_is_found_within_a_few_seeds():
    rng = np.random.default_rng(1)
    stops = [sequential_t(rng.normal(-2.0, 1.0, 30)).decided_at for _ in range(50)]
    assert None not in stops
    assert np.median(stops) <= 10


def test_the_confidence_sequence_covers_the_mean_at_every_position_at_once():
    rng, trials = np.random.default_rng(2), 300
    covered = 0
    for _ in range(trials):
        result = sequential_t(rng.normal(0.7, 2.0, 40), alpha=0.1)
        covered += all(low <= 0.7 <= high for low, high in zip(result.low, result.high, strict=True))
    assert covered / trials >= 0.9 - 3 * math.sqrt(0.09 / trials)


def test_the_decision_is_the_confidence_sequence_leaving_zero():
    data = np.random.default_rng(3).normal(-1.0, 1.0, 25)
    result = sequential_t(data)
    outside = [i + 1 for i, (low, high) in enumerate(zip(result.low, result.high, strict=True)) if not low <= 0 <= high]
    assert result.decided_at == outside[0]


def test_p_values_never_rise_again():
    result = sequential_t([-1.0, -1.1, -0.9, -1.0, 3.0, 4.0, 5.0])
    assert list(result.p_values) == sorted(result.p_values, reverse=True)
    assert result.e_values[-1] < max(result.e_values)


def test_sequential_t_without_spread():
    null = sequential_t([0.0] * 20)
    assert set(null.e_values) == {1.0}
    assert null.decided_at is None
    constant = sequential_t([-0.1] * 20)
    assert constant.e_values[4] == pytest.approx(6.0**2)
    assert constant.decided_at is not None
    assert sequential_t([-0.1]).low == (-math.inf,)


def test_the_sign_e_value_is_its_integral():
    data = [-1, -1, 1, -1, 0, -1, 1, -1]
    result = sequential_sign(data)
    wins = losses = 0
    for value, wealth in zip(data, result.e_values, strict=True):
        wins, losses = wins + (value < 0), losses + (value > 0)
        area, _ = integrate.quad(lambda p, won=wins, lost=losses: p**won * (1 - p) ** lost, 0.5, 1)
        assert wealth == pytest.approx(2 ** (wins + losses + 1) * area)


def test_nine_straight_wins_reach_a_hundred_and_losses_never_do():
    assert sequential_sign([-1.0] * 12, alpha=0.01).decided_at == 9
    assert sequential_sign([1.0] * 2_000).e_values[-1] < 1e-3
    assert sequential_sign([-1.0] * 2_000).e_values[-1] > 1e200
    assert set(sequential_sign([0.0] * 5).e_values) == {1.0}
    assert sequential_sign([0.0] * 5).low[-1] == 0.0


def test_the_sign_confidence_sequence_covers_the_win_rate():
    rng, trials = np.random.default_rng(4), 200
    covered = 0
    for _ in range(trials):
        result = sequential_sign(np.where(rng.uniform(size=30) < 0.8, -1.0, 1.0), alpha=0.1)
        covered += all(low <= 0.8 <= high for low, high in zip(result.low, result.high, strict=True))
    assert covered / trials >= 0.9 - 3 * math.sqrt(0.09 / trials)


@pytest.mark.parametrize("test", [sequential_t, sequential_sign])
def test_bad_arguments_are_errors(test):
    with pytest.raises(ValueError, match="0 paired"):
        test([])
    with pytest.raises(ValueError, match="must be finite"):
        test([0.1, math.nan])
    with pytest.raises(ValueError, match="alpha must lie strictly"):
        test([0.1, 0.2], alpha=1.0)


def test_a_prior_without_spread_is_an_error():
    with pytest.raises(ValueError, match="prior_sd must be a positive number; got 0"):
        sequential_t([0.1, 0.2], prior_sd=0)

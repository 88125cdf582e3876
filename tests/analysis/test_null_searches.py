"""Searches among nulls: the promotion rule holds its level where taking the best does not."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.null_searches import noise_of, simulate_null_searches
from tests.analysis.curve_tables import made_up_table


def test_noise_has_the_variance_of_single_runs() -> None:
    table = made_up_table(400, 4, noise=0.01)
    noise = noise_of(table)
    assert noise.shape == (401 * 4, 3)
    own = noise.reshape(401, 4, 3) - noise.reshape(401, 4, 3).mean(axis=0)  # without what all arms share at a seed
    assert own.std() == pytest.approx(0.01, rel=0.1)


def test_nulls_are_rarely_promoted_and_the_best_of_forty_mostly_looks_good() -> None:
    rng = np.random.default_rng(1)
    found = simulate_null_searches(rng.normal(0, 0.02, (160, 3)), rng=rng, n_searches=400)
    assert found.two_stage.rate <= 0.03
    assert found.naive_best.rate > 0.6
    assert found.winners_gain > 0.01


def test_a_shared_unlucky_reference_does_not_break_the_level() -> None:
    """One row in five is a reference that failed to train well: a mixture with heavy tails."""
    rng = np.random.default_rng(2)
    noise = np.where(rng.random((200, 1)) < 0.2, 0.15, 0.0) + rng.normal(0, 0.01, (200, 3))
    found = simulate_null_searches(noise, rng=rng, n_searches=400, n_candidates=10)
    assert found.two_stage.low <= 0.05


def test_a_rule_without_a_correction_would_be_seen() -> None:
    """The simulation can fail: at a level of one half the false promotions are many."""
    rng = np.random.default_rng(3)
    found = simulate_null_searches(rng.normal(0, 0.02, (50, 1)), rng=rng, n_searches=200, alpha=0.49, least_effect=0.0)
    assert found.two_stage.rate > 0.2


@pytest.mark.parametrize(
    ("noise", "changes", "message"),
    [
        ([[0.1, 0.2]], {}, "at least 2 runs"),
        ([[0.1], [float("nan")]], {}, "finite"),
        ([[0.1], [0.1]], {}, "no spread"),
        ([[0.1], [0.2]], {"shortlist": 50}, "shortlist at most"),
        ([[0.1], [0.2]], {"confirmation_seeds": 1}, "at least 2"),
    ],
)
def test_bad_arguments_are_errors(noise: list[list[float]], changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate_null_searches(noise, rng=np.random.default_rng(0), n_searches=1, **changes)  # type: ignore[arg-type]

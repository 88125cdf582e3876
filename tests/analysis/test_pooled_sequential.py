"""The one-sided test with pooled spread: level under peeking, power, ties and edges."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.pooled_sequential import is_worse, pooled_sd, worse_e_value


def test_looking_after_every_seed_keeps_the_level_also_for_candidates_that_are_better() -> None:
    rng = np.random.default_rng(0)
    for mean in (0.0, -0.3):
        found = sum(
            any(worse_e_value(values[:n], sd=1.0) >= 20 for n in range(1, 21))
            for values in rng.standard_normal((600, 20)) + mean
        )
        assert found / 600 <= 0.05


def test_a_clearly_worse_candidate_is_stopped_after_two_seeds() -> None:
    assert is_worse([0.08, 0.09], sd=0.02)
    assert not is_worse([0.0, 0.0], sd=0.02)
    assert not is_worse([-0.08, -0.09], sd=0.02)


def test_a_candidate_with_a_larger_spread_of_its_own_is_judged_with_that() -> None:
    wild = [0.3, -0.2, 0.25]
    assert worse_e_value(wild, sd=0.02) > 20
    assert not is_worse(wild, sd=0.02)


def test_pooling_equals_numpy_and_leaves_exact_nulls_out() -> None:
    groups = [[0.1, 0.3], [0.2, 0.2, 0.5], [1.0], [0.0, 0.0]]
    sd, freedom = pooled_sd(groups)
    assert freedom == 3
    assert sd == pytest.approx(np.sqrt((np.var([0.1, 0.3]) * 2 + np.var([0.2, 0.2, 0.5]) * 3) / 3))
    assert pooled_sd([[0.1], [0.0, 0.0]]) == (0.0, 0)


@pytest.mark.parametrize("sd", [0.0, -1.0, float("nan")])
def test_a_spread_must_be_positive(sd: float) -> None:
    with pytest.raises(ValueError, match="sd must be a positive number"):
        worse_e_value([0.1], sd=sd)

"""Loss at equal training FLOPs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.equal_flops import equal_flops

FLOPS = np.array([1e9, 2e9, 4e9])
LOSSES = 3.0 - 0.2 * np.log(FLOPS / 1e9) + np.random.default_rng(0).normal(0, 0.01, (4, 3))


def test_the_same_arm_has_no_difference() -> None:
    rows = equal_flops(FLOPS, LOSSES, FLOPS, LOSSES)
    assert [row.flops for row in rows] == FLOPS.tolist()
    assert all(row.test.p == 1.0 and set(row.differences) == {0.0} for row in rows)


def test_a_gain_that_is_paid_for_with_flops_is_no_gain() -> None:
    """0.1 nats better at every size, at 2^0.5 times the FLOPs: 0.2 ln 2^0.5 = 0.069 of it is the price."""
    rows = equal_flops(FLOPS * 2**0.5, LOSSES - 0.1, FLOPS, 3.0 - 0.2 * np.log(FLOPS / 1e9) + np.zeros((4, 3)))
    assert [row.flops for row in rows] == [2e9, 4e9]
    assert np.mean([row.test.mean for row in rows]) == pytest.approx(-0.1 + 0.2 * np.log(2**0.5), abs=0.01)
    assert rows[0].test.p == pytest.approx(stats.ttest_1samp(rows[0].differences, 0).pvalue)


def test_ranges_that_do_not_meet_say_nothing() -> None:
    assert equal_flops(FLOPS * 100, LOSSES, FLOPS, LOSSES) == []


@pytest.mark.parametrize(
    ("flops", "losses", "message"),
    [
        ([1e9], [[3.0], [3.1]], "at least 2 sizes"),
        ([1e9, 1e9], [[3.0, 2.9], [3.1, 2.9]], "all different"),
        ([1e9, 2e9], [[3.0, float("nan")], [3.1, 2.9]], "finite"),
        ([1e9, 2e9], [[3.0, 2.9]], "at least 2"),
        (FLOPS, LOSSES[:3], "paired"),
    ],
)
def test_bad_arms_are_errors(flops: list[float], losses: list[list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        equal_flops(flops, losses, FLOPS, LOSSES)

"""McNemar's exact test against the binomial, and the interval of a relative gain."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from analysis.paired_proportions import mcnemar, relative_gain


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (5, 1), (20, 7), (30, 30), (300, 200)])
def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs(only_first: int, only_second: int) -> None:
    first = [True] * only_first + [False] * only_second + [True, False] * 3
    second = [False] * only_first + [True] * only_second + [True, False] * 3
    result = mcnemar(first, second)
    assert (result.only_first, result.only_second) == (only_first, only_second)
    n = only_first + only_second
    assert result.p == pytest.approx(binomtest(only_first, n).pvalue if n else 1.0, rel=1e-9)


def test_the_gain_is_relative_and_its_interval_keeps_pairs_together() -> None:
    second = [n % 2 == 0 for n in range(400)]
    first = [n % 2 == 0 or n % 10 == 1 for n in range(400)]
    gain = relative_gain(first, second, np.random.default_rng(0))
    assert gain.value == pytest.approx(0.2)
    assert gain.low is not None
    assert gain.high is not None
    assert 0.1 < gain.low < 0.2 < gain.high < 0.35
    assert relative_gain(first, [False] * 400, np.random.default_rng(0)).value is None
    with pytest.raises(ValueError, match="must be the same"):
        mcnemar([True], [])
    with pytest.raises(ValueError, match="must be the same"):
        relative_gain([], [], np.random.default_rng(0))

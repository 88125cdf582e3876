"""Error rates of a set-up from rows of runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from analysis.error_rates import error_rates
from tests.analysis.curve_tables import made_up_table

PLAN: dict[str, Any] = {"alpha": 0.01, "least_effect": 0.01, "shortlist": 2, "n_searches": 60}


def rows() -> list[dict[str, Any]]:
    table = made_up_table(6)
    return [
        {
            "candidate": name,
            "size": size,
            "seed": seed,
            "curve": [[int(step), 0.0, float(curves.losses[c, s, e])] for e, step in enumerate(curves.steps)],
        }
        for c, name in enumerate(table.candidates)
        for size, curves in table.sizes.items()
        for s, seed in enumerate(table.seeds)
    ]


def test_every_rung_is_ranked_against_the_end() -> None:
    table = made_up_table(6)
    rates = error_rates(rows(), rng=np.random.default_rng(0), **PLAN)
    final = np.mean([table.finals(size).mean(axis=1) for size in table.sizes], axis=0)
    early = table.sizes["d48"].losses[:, :, 0].mean(axis=1)
    found = {(proxy.size, proxy.step): proxy.tau for proxy in rates.proxies}
    assert found["d48", 100] == pytest.approx(kendalltau(early, final).statistic)
    assert (rates.n_arms, rates.n_seeds, len(rates.proxies)) == (7, 4, 16)
    assert list(rates.power.values()) == sorted(rates.power.values())
    assert rates.nulls is not None
    assert rates.nulls.two_stage.rate < rates.nulls.naive_best.rate


def test_an_arm_with_a_failed_run_is_left_out_and_not_filled_in() -> None:
    assert error_rates(rows()[1:], rng=np.random.default_rng(0), **PLAN).n_arms == 6


def test_one_arm_says_nothing() -> None:
    with pytest.raises(ValueError, match="at least 2 arms"):
        error_rates(rows()[:12], rng=np.random.default_rng(0), **PLAN)

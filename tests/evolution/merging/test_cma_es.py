"""CMA-ES on a known function: it finds the optimum, stops for each of its reasons, survives failures, and replays."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evolution.merging.cma_es import CMAESConfig, CMAESOptimizer
from evolution.merging.genetic_search import GeneticSearch
from frameworks.merging.merge_error import MergeError

OPTIMUM = np.array([0.2, 0.7, 0.55])


def bowl(vector: np.ndarray) -> float:
    return -float(((vector - OPTIMUM[: len(vector)]) ** 2).sum())


@pytest.mark.parametrize("covariance", ["full", "separable"])
def test_the_optimum_of_a_bowl_is_found(covariance: str) -> None:
    optimizer = CMAESOptimizer(CMAESConfig(seed=1, max_generations=60, covariance=covariance))  # type: ignore[arg-type]
    best, fitness = optimizer.optimize(bowl, 3)
    np.testing.assert_allclose(best, OPTIMUM, atol=0.02)
    assert fitness == bowl(best)
    assert optimizer.stopped


def test_one_dimension_works() -> None:
    best, _ = CMAESOptimizer(CMAESConfig(seed=2, max_generations=40)).optimize(bowl, 1)
    assert abs(best[0] - 0.2) < 0.02


def test_a_seed_decides_everything_asked_for() -> None:
    asked: list[list[np.ndarray]] = []
    for seed in (5, 5, 6):
        optimizer = CMAESOptimizer(CMAESConfig(seed=seed))
        optimizer.start(4)
        rows = []
        for _ in range(3):
            batch = optimizer.ask()
            optimizer.tell([-float(v.sum()) for v in batch])
            rows += batch
        asked.append(rows)
    assert all(np.array_equal(a, b) for a, b in zip(asked[0], asked[1], strict=True))
    assert not np.array_equal(asked[0][0], asked[2][0])
    assert all((row >= 0).all() and (row <= 1).all() for row in asked[0])


def test_failures_rank_last_and_the_search_goes_on() -> None:
    def fails_above_half(vector: np.ndarray) -> float | None:
        if vector[0] > 0.5:
            return None if vector[1] > 0.5 else math.nan
        return bowl(vector)

    best, _ = CMAESOptimizer(CMAESConfig(seed=3, max_generations=60)).optimize(fails_above_half, 3)
    np.testing.assert_allclose(best, OPTIMUM, atol=0.03)
    with pytest.raises(MergeError, match="all 7 candidates failed"):
        CMAESOptimizer(CMAESConfig(max_generations=1)).optimize(lambda vector: None, 3)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"target_fitness": -0.05}, "target fitness"),
        ({"max_generations": 2}, "2 generations are done"),
        ({"patience": 3, "tolerance": 10.0}, "3 generations without a gain"),
    ],
)
def test_it_says_why_it_stopped(settings: dict[str, float], reason: str) -> None:
    optimizer = CMAESOptimizer(CMAESConfig(seed=4, **settings))  # type: ignore[arg-type]
    optimizer.optimize(bowl, 3)
    assert reason in optimizer.stopped


def test_simplex_coefficients_sum_to_one_and_trials_are_whole_generations() -> None:
    seen = []
    config = CMAESConfig(seed=0, population_size=6, coefficients="simplex")
    best, _ = CMAESOptimizer(config).optimize(lambda v: seen.append(v) or bowl(v), 3, n_trials=20)
    assert len(seen) == 18
    assert all(abs(v.sum() - 1) < 1e-9 for v in seen)
    assert abs(best.sum() - 1) < 1e-9


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"bounds": (1.0, 0.0)}, "the lower first"),
        ({"sigma": 0.0}, "sigma is 0.0"),
        ({"population_size": 1}, "population_size is 1"),
        ({"population_size": 10, "n_parents": 4}, "half of population_size"),
        ({"coefficients": "sum"}, "allowed: free, simplex"),
        ({"patience": 0}, "patience is 0"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], part: str) -> None:
    with pytest.raises(MergeError, match=part):
        CMAESConfig(**settings)  # type: ignore[arg-type]


def test_the_plain_genetic_search_climbs_and_random_search_does_not_learn() -> None:
    results = {}
    for blind in (False, True):
        search = GeneticSearch(population_size=12, max_generations=25, sigma=0.1, seed=0, blind=blind)
        search.start(3)
        while not search.stopped:
            asked = search.ask()
            search.tell([None if index == 0 and not blind else bowl(v) for index, v in enumerate(asked)])
        assert search.best is not None
        results[blind] = search.best[1]
    assert results[False] > -0.005
    assert results[False] > results[True]

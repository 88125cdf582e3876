"""OpenEvolve's database behind our admission: reproducible, never fed a bad score."""

import random
import subprocess
import sys

import pytest

from evolution.config import PopulationSection
from evolution.population import Population

_HISTORY = """
from evolution.config import PopulationSection
from evolution.population import Population
population = Population(PopulationSection(islands=3, size=12, archive_size=6, migration_interval=2), seed=5)
for island in range(3):
    population.admit(
        f"root@{island}", "class Start: pass", {"combined_score": 1.0}, parent=None, iteration=0, island=island
    )
trail = []
for i in range(1, 40):
    sample = population.sample(i, 0, 3)
    trail.append((sample.parent, sample.inspirations))
    population.admit(
        f"c{i:02d}", "x = 1\\n" * (i % 7 + 1) + f"# {i}", {"combined_score": 1 + (i * 37 % 11) / 10},
        parent=sample.parent, iteration=i, island=sample.island,
    )
print(trail, population.ranked())
"""


def _history(hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _HISTORY], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": hash_seed}
    )
    return done.stdout


def test_same_seed_same_parents_whatever_the_string_hash() -> None:
    first = _history("1")
    assert first == _history("2")
    assert "c05" in first


def test_the_process_random_state_is_untouched() -> None:
    population = Population(PopulationSection(), seed=1)
    random.seed(11)
    expected = random.random()
    random.seed(11)
    population.admit("a", "class A: pass", {"combined_score": 1.0}, parent=None, iteration=0, island=0)
    population.sample(1, 0, 2)
    assert random.random() == expected


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -1.0, None])
def test_a_score_that_is_not_finite_or_negative_is_refused(score: float | None) -> None:
    population = Population(PopulationSection(), seed=1)
    metrics = {} if score is None else {"combined_score": score}
    with pytest.raises(ValueError, match="combined_score"):
        population.admit("a", "class A: pass", metrics, parent=None, iteration=0, island=0)


def test_samples_differ_between_attempts_and_never_repeat_the_parent() -> None:
    population = Population(PopulationSection(islands=1), seed=3)
    for i in range(12):
        population.admit(
            f"c{i}", f"x = {i}\n" * (i + 1), {"combined_score": 1 + i / 50}, parent=None, iteration=i, island=0
        )
    samples = [population.sample(20, attempt, 3) for attempt in range(8)]
    assert len({sample.parent for sample in samples}) > 1
    for sample in samples:
        assert sample.parent not in sample.inspirations
        assert len(set(sample.inspirations)) == len(sample.inspirations) <= 3

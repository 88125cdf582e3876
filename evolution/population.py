"""OpenEvolve's program database, made reproducible.

`openevolve.database.ProgramDatabase` keeps islands, a MAP-Elites grid and an archive. Its
choices hang on the global `random` state, on string-hash order (ids live in sets) and on
`uuid4` ids. Here ids come from the ledger, sets iterate in sorted order, and every call
that draws runs under a state seeded from (seed, purpose, index) and put back afterwards,
so that the same seed and the same admissions give the same parents in any process.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from openevolve.config import DatabaseConfig
from openevolve.database import Program as StoredProgram
from openevolve.database import ProgramDatabase

from data.keyed_random import seed_of
from evolution.config import PopulationSection


class _SortedSet(set):  # type: ignore[type-arg]
    """A set that iterates in sorted order, whatever the string hash."""

    def __iter__(self) -> Iterator[Any]:
        return iter(sorted(set.__iter__(self)))

    def copy(self) -> _SortedSet:
        return _SortedSet(set.copy(self))


@contextmanager
def _seeded(*key: str | int) -> Iterator[None]:
    """Run OpenEvolve's draws on a keyed state; the process's own state is untouched."""
    state = random.getstate()
    random.seed(seed_of(*key))
    try:
        yield
    finally:
        random.setstate(state)


class _Database(ProgramDatabase):  # type: ignore[misc]
    """ProgramDatabase with ordered sets and migrant ids derived from the migrant."""

    def __init__(self, config: DatabaseConfig) -> None:
        super().__init__(config)
        self.islands = [_SortedSet() for _ in range(config.num_islands)]
        self.archive = _SortedSet()

    def _migrate_one(self, program_id: str, target_island: int) -> None:
        migrant = self.programs.get(program_id)
        if migrant is None or migrant.metadata.get("migrant", False):
            return
        if any(self.programs[pid].code == migrant.code for pid in self.islands[target_island] if pid in self.programs):
            return
        copy = StoredProgram(
            id=f"{migrant.id}@{target_island}",
            code=migrant.code,
            language=migrant.language,
            parent_id=migrant.id,
            generation=migrant.generation,
            timestamp=migrant.timestamp,
            metrics=dict(migrant.metrics),
            metadata={**migrant.metadata, "island": target_island, "migrant": True},
        )
        self.add(copy, target_island=target_island)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a proposal starts from: candidate identities, the parent first."""

    parent: str
    inspirations: tuple[str, ...]
    island: int


class Population:
    """Measured candidates, and who becomes a parent.

    Args:
        section: sizes and ratios.
        seed: the run's seed; with equal admissions it gives equal samples.
    """

    def __init__(self, section: PopulationSection, seed: int) -> None:
        self._seed = seed
        self._n_islands = section.islands
        config = DatabaseConfig(
            in_memory=True,
            log_prompts=False,
            population_size=section.size,
            archive_size=section.archive_size,
            num_islands=section.islands,
            exploration_ratio=section.exploration_ratio,
            exploitation_ratio=section.exploitation_ratio,
            migration_interval=section.migration_interval,
            migration_rate=section.migration_rate,
            random_seed=None,
        )
        self._database = _Database(config)
        self._admitted = 0

    def admit(
        self, identity: str, block: str, metrics: dict[str, float], *, parent: str | None, iteration: int, island: int
    ) -> None:
        """Add a measured candidate to an island; `metrics` holds a finite, non-negative `combined_score`.

        Raises:
            ValueError: no usable `combined_score`.
        """
        score = metrics.get("combined_score")
        if score is None or not 0.0 <= score < float("inf"):
            raise ValueError(f"combined_score={score!r} of candidate {identity[:12]}: must be finite and at least 0")
        stored_parent = self._database.programs.get(parent) if parent else None
        program = StoredProgram(
            id=identity,
            code=block,
            parent_id=parent if stored_parent else None,
            generation=(stored_parent.generation + 1) if stored_parent else 0,
            timestamp=float(iteration),
            iteration_found=iteration,
            metrics=dict(metrics),
        )
        with _seeded("population", self._seed, "admit", self._admitted):
            self._database.add(program, iteration=iteration, target_island=island % self._n_islands)
            if iteration > 0:
                self._database.increment_island_generation(island % self._n_islands)
                if self._database.should_migrate():
                    self._database.migrate_programs()
        self._admitted += 1

    def sample(self, iteration: int, attempt: int, inspirations: int) -> Sample:
        """Draw a parent and inspirations for one attempt at one iteration."""
        island = iteration % self._n_islands
        with _seeded("population", self._seed, "sample", iteration, attempt):
            parent, others = self._database.sample_from_island(island, num_inspirations=inspirations)
        parent_id = parent.id.partition("@")[0]
        seen = {parent_id}
        names = []
        for other in others:
            name = other.id.partition("@")[0]
            if name not in seen:
                seen.add(name)
                names.append(name)
        return Sample(parent=parent_id, inspirations=tuple(names), island=island)

    def ranked(self) -> list[tuple[str, float]]:
        """Identities with their score, best first, ties by identity."""
        scores = {
            program.id.partition("@")[0]: float(program.metrics["combined_score"])
            for program in self._database.programs.values()
        }
        return sorted(scores.items(), key=lambda item: (-item[1], item[0]))

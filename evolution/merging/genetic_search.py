"""A plain genetic search over vectors in [0, 1], with the same ask and tell as CMA-ES; and random search.

Truncation selection of the better half, the best one kept as it is, children between two parents (BLX-0.25) with
normal mutation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.keyed_random import numpy_generator

Vector = NDArray[np.float64]


class GeneticSearch:
    """Ask for a generation, tell what it came to.

    Args:
        population_size: candidates a generation; None: 4 + floor(3 ln n).
        max_generations: most generations.
        sigma: standard deviation of a mutation.
        seed: of everything random.
        blind: draw every candidate uniformly: random search.

    Attributes:
        best: the best candidate so far and its fitness; None before the first one that has a fitness.
        history: best fitness of each generation; None where all failed.
        stopped: why the search is over; empty while it goes on.
    """

    def __init__(
        self, *, population_size: int | None, max_generations: int, sigma: float, seed: int, blind: bool = False
    ) -> None:
        self.best: tuple[Vector, float] | None = None
        self.history: list[float | None] = []
        self.stopped = ""
        self._size = population_size
        self._most = max_generations
        self._sigma = sigma
        self._seed = seed
        self._blind = blind
        self._parents: list[tuple[Vector, float]] = []
        self._asked: list[Vector] = []
        self._start: Vector = np.zeros(0)

    def start(self, n_dimensions: int, mean: Vector | None = None) -> None:
        """Begin at `mean`, the middle when None."""
        self._start = np.full(n_dimensions, 0.5) if mean is None else mean
        self._size = self._size or 4 + int(3 * math.log(n_dimensions))

    def ask(self) -> list[Vector]:
        """The candidates of the next generation, each (n,)."""
        random = numpy_generator("genetic search", self._seed, int(self._blind), len(self.history))
        n, size = len(self._start), self._size or 2
        if self._blind:
            self._asked = [random.random(n) for _ in range(size)]
        elif not self._parents:
            spread = [random.normal(0.0, self._sigma, n) for _ in range(size - 1)]
            self._asked = [self._start, *(np.clip(self._start + step, 0.0, 1.0) for step in spread)]
        else:
            self._asked = [self._parents[0][0], *(self._child(random) for _ in range(size - 1))]
        return list(self._asked)

    def _child(self, random: np.random.Generator) -> Vector:
        one, other = (self._parents[int(place)][0] for place in random.integers(0, len(self._parents), 2))
        share = random.uniform(-0.25, 1.25, len(one))
        return np.clip(one + share * (other - one) + random.normal(0.0, self._sigma / 2, len(one)), 0.0, 1.0)

    def tell(self, fitness: Sequence[float | None]) -> None:
        """What the candidates of the last `ask` came to; None is a failure and no parent."""
        scored = [(v, f) for v, f in zip(self._asked, fitness, strict=True) if f is not None and math.isfinite(f)]
        self.history.append(max((value for _, value in scored), default=None))
        pool = {vector.tobytes(): (vector, value) for vector, value in [*self._parents, *scored]}
        ranked = sorted(pool.values(), key=lambda pair: -pair[1])
        self._parents = ranked[: max(2, (self._size or 2) // 2)]
        if ranked and (self.best is None or ranked[0][1] > self.best[1]):
            self.best = ranked[0]
        if len(self.history) >= self._most:
            self.stopped = f"{self._most} generations are done"

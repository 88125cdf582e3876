"""CMA-ES over merge coefficients, on the `cmaes` library, with the limits a merge needs.

Maximises. A candidate that failed has no fitness (None) and ranks behind every other one of its generation, so a
merge that cannot be done never ends a search. The same seed asks for the same candidates in the same
order: a resumed search replays them from the ledger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from data.keyed_random import seed_of
from frameworks.merging.merge_error import MergeError

Vector = NDArray[np.float64]
Fitness = Callable[[Vector], float | None]

FULL_LIMIT = 400
"""Dimensions up to which `auto` keeps the full covariance; its update costs the cube of them."""


@dataclass(frozen=True, kw_only=True)
class CMAESConfig:
    """Settings of the search.

    Attributes:
        population_size: candidates a generation, at least 4; None: 4 + floor(3 ln n).
        n_parents: parents of recombination; the library takes half the population, so only that, or None.
        sigma: first step size, in units of the coefficients; the paper uses a sixth of the range.
        max_generations: most generations.
        target_fitness: stop when it is reached.
        tolerance: a generation that does not gain more than this counts as stale.
        patience: stop after so many stale generations.
        bounds: of every coefficient.
        seed: None draws one from the key ("cma-es",).
        coefficients: `free`, or `simplex`: divided by their sum, as the specification has it. The paper's best
            weights sum to about two, which `simplex` cannot reach.
        covariance: `full`, `separable`, or `auto` by the number of dimensions.

    Raises:
        MergeError: a value outside its range.
    """

    population_size: int | None = None
    n_parents: int | None = None
    sigma: float = 1 / 6
    max_generations: int = 1000
    target_fitness: float | None = None
    tolerance: float = 1e-6
    patience: int = 50
    bounds: tuple[float, float] = (0.0, 1.0)
    seed: int | None = None
    coefficients: Literal["free", "simplex"] = "free"
    covariance: Literal["full", "separable", "auto"] = "auto"

    def __post_init__(self) -> None:
        """Raises: see the class."""
        low, high = self.bounds
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise MergeError(f"bounds are {self.bounds!r}; they must be two finite numbers, the lower first")
        if not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise MergeError(f"sigma is {self.sigma!r}; it must be a finite number above 0")
        for name, least in (("max_generations", 1), ("patience", 1), ("population_size", 4)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise MergeError(f"{name} is {value!r}; it must be at least {least}")
        for name, allowed in (("coefficients", ("free", "simplex")), ("covariance", ("full", "separable", "auto"))):
            if getattr(self, name) not in allowed:
                raise MergeError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        if self.n_parents is not None and (self.population_size is None or self.n_parents != self.population_size // 2):
            raise MergeError(
                f"n_parents is {self.n_parents!r} and population_size {self.population_size!r}; "
                "n_parents must be half of population_size, or None"
            )


class CMAESOptimizer:
    """Ask for a generation, tell what it came to, until `stopped`.

    Args:
        config: settings.

    Attributes:
        best: the best candidate so far and its fitness; None before the first one that has a fitness.
        history: best fitness of each generation; None where all failed.
        stopped: why the search is over; empty while it goes on.
    """

    def __init__(self, config: CMAESConfig | None = None) -> None:
        self.config = config or CMAESConfig()
        self.best: tuple[Vector, float] | None = None
        self.history: list[float | None] = []
        self.stopped = ""
        self._search: Any = None
        self._n = 0
        self._asked: list[Vector] = []
        self._stale = 0

    def start(self, n_dimensions: int, mean: Vector | None = None) -> None:
        """Begin a search.

        Args:
            n_dimensions: how many coefficients.
            mean: where it starts, (n,); the middle of the bounds when None.

        Raises:
            MergeError: no dimension, or a mean of another length.
        """
        if n_dimensions < 1:
            raise MergeError(f"n_dimensions is {n_dimensions!r}; it must be at least 1")
        low, high = self.config.bounds
        centre = np.full(n_dimensions, (low + high) / 2) if mean is None else np.clip(mean, low, high)
        if len(centre) != n_dimensions:
            raise MergeError(f"the mean has {len(centre)} values for {n_dimensions} dimensions")
        self.best, self.history, self.stopped, self._stale = None, [], "", 0
        self._n = n_dimensions
        # the library needs two dimensions; with one, a second that nobody sees is searched along
        seen = centre if n_dimensions > 1 else np.array([centre[0], (low + high) / 2])
        self._search = self._library_search(seen.astype(np.float64))

    def _library_search(self, mean: Vector) -> Any:
        import cmaes

        n = len(mean)
        config = self.config
        seed = seed_of("cma-es", *(() if config.seed is None else (config.seed,))) % (1 << 32)
        bounds = np.tile(np.asarray(config.bounds, dtype=np.float64), (n, 1))
        given = {"mean": mean, "sigma": config.sigma, "bounds": bounds, "seed": seed}
        given["population_size"] = config.population_size or 4 + int(3 * math.log(n))
        separable = config.covariance == "separable" or (config.covariance == "auto" and n > FULL_LIMIT)
        return cmaes.SepCMA(**given) if separable else cmaes.CMA(**given)

    @property
    def population_size(self) -> int:
        """Candidates a generation."""
        return int(self._search.population_size)

    def ask(self) -> list[Vector]:
        """The candidates of the next generation, as the fitness is to see them."""
        self._asked = [self._search.ask() for _ in range(self.population_size)]
        return [self.coefficients(vector) for vector in self._asked]

    def coefficients(self, vector: Vector) -> Vector:
        """A point of the search as coefficients: as it is, or divided by its sum."""
        vector = vector[: self._n]
        if self.config.coefficients == "free":
            return vector
        total = float(vector.sum())
        return vector / total if abs(total) > 1e-12 else np.full(len(vector), 1.0 / len(vector))

    def tell(self, fitness: Sequence[float | None]) -> None:
        """What the candidates of the last `ask` came to, in order; None and NaN are failures.

        Raises:
            ValueError: another number of them.
        """
        if len(fitness) != len(self._asked):
            raise ValueError(f"{len(fitness)} fitness values for {len(self._asked)} candidates")
        usable = [value if value is not None and math.isfinite(value) else None for value in fitness]
        finite = [value for value in usable if value is not None]
        behind = max((-value for value in finite), default=0.0) + 1.0
        ranked = [(v, behind if f is None else -f) for v, f in zip(self._asked, usable, strict=True)]
        self._search.tell(ranked)
        before = self.best[1] if self.best else -math.inf
        for vector, value in zip(self._asked, usable, strict=True):
            if value is not None and (self.best is None or value > self.best[1]):
                self.best = (self.coefficients(vector), value)
        self.history.append(max(finite, default=None))
        self._stale = 0 if self.best is not None and self.best[1] > before + self.config.tolerance else self._stale + 1
        self._decide()

    def _decide(self) -> None:
        config = self.config
        if config.target_fitness is not None and self.best is not None and self.best[1] >= config.target_fitness:
            self.stopped = f"the target fitness {config.target_fitness:g} is reached"
        elif len(self.history) >= config.max_generations:
            self.stopped = f"{config.max_generations} generations are done"
        elif self._stale >= config.patience:
            self.stopped = f"{config.patience} generations without a gain above {config.tolerance:g}"
        elif self._search.should_stop():
            self.stopped = "the search has converged"

    def optimize(
        self, fitness: Fitness, n_dimensions: int, n_trials: int | None = None, mean: Vector | None = None
    ) -> tuple[Vector, float]:
        """Search to the end.

        Args:
            fitness: coefficients (n,) -> what to maximise; None or NaN for a failure.
            n_dimensions: how many coefficients.
            n_trials: most evaluations; whole generations that fit are run, at least one.
            mean: where to start.

        Returns:
            The best coefficients and their fitness.

        Raises:
            MergeError: every candidate failed.
        """
        self.start(n_dimensions, mean)
        done = 0
        while not self.stopped and (n_trials is None or done == 0 or done + self.population_size <= n_trials):
            candidates = self.ask()
            self.tell([fitness(candidate) for candidate in candidates])
            done += len(candidates)
        if self.best is None:
            raise MergeError(f"all {done} candidates failed; there is no best one")
        return self.best

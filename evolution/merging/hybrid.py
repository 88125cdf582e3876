"""Searches for a merge: in parameter space, by layer gates, along data flows, and the hybrid of the first and the last.

The hybrid is the paper's best form: the best recipe of the parameter space joins the sources as the first model of the
pool, and the data flow starts at exactly that model, so it can only add to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evolution.merging.candidate import MergeCandidate, copy_of
from evolution.merging.cma_es import CMAESConfig, CMAESOptimizer
from evolution.merging.dataflow import DataFlow
from evolution.merging.evaluation import Score
from evolution.merging.evolution_config import EvolutionConfig
from evolution.merging.genetic_search import GeneticSearch
from evolution.merging.layer_gate import LayerGate
from evolution.merging.parameter_space import ParameterSpace
from frameworks.merging.merge_error import MergeError

Vector = NDArray[np.float64]
Evaluate = Callable[[MergeCandidate], Score]
Listener = Callable[[str, int, int, float | None], None]
"""(stage, generation, generations, best fitness)"""


class Search(Protocol):
    """What CMAESOptimizer and GeneticSearch have in common."""

    stopped: str
    best: tuple[Vector, float] | None
    history: list[float | None]

    def start(self, n_dimensions: int, mean: Vector | None = None) -> None:
        """Begin."""
        ...

    def ask(self) -> list[Vector]:
        """The next candidates."""
        ...

    def tell(self, fitness: list[float | None]) -> None:
        """Their fitness."""
        ...


@dataclass(frozen=True, kw_only=True)
class Found:
    """The outcome of one search.

    Attributes:
        stage: `parameter space`, `layer gate`, `data flow` or `random search`.
        ranked: distinct candidates with a fitness, the best first.
        evaluations: how many candidates were asked for.
        failures: how many had no fitness.
        stopped: why it ended.
        history: best fitness of each generation.
        front: of NSGA-II: the objectives of each ranked candidate, in the order of their names.
    """

    stage: str
    ranked: tuple[tuple[MergeCandidate, float], ...]
    evaluations: int
    failures: int
    stopped: str
    history: tuple[float | None, ...]
    front: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What is merged: the base (None where there is none), the models, and how many layers each has."""

    base: str | None
    models: tuple[str, ...]
    n_layers: int


def parameter_space(config: EvolutionConfig, sources: Sources) -> ParameterSpace:
    """The space of a configuration; raises MergeError as `ParameterSpace` does."""
    return ParameterSpace(
        merge_method=config.merge_method,
        base_model=sources.base,
        models=sources.models,
        n_layers=sources.n_layers,
        groups=config.groups,
        weight_range=config.weight_range,
        densities=config.search_densities,
        seed=config.seed,
    )


def _cma_es(config: EvolutionConfig, generations: int, target: float | None, purpose: int) -> Search:
    """CMA-ES, or the genetic search where the configuration asks for it."""
    if not config.use_cmaes:
        return GeneticSearch(
            population_size=config.population_size,
            max_generations=generations,
            sigma=config.sigma,
            seed=config.seed + purpose,
        )
    return CMAESOptimizer(
        CMAESConfig(
            population_size=config.population_size,
            sigma=config.sigma,
            max_generations=generations,
            patience=config.patience,
            target_fitness=target,
            seed=config.seed + purpose,
        )
    )


def run_search(
    stage: str,
    search: Search,
    n_dimensions: int,
    decode: Callable[[Vector], MergeCandidate],
    evaluate: Evaluate,
    listener: Listener,
    generations: int,
    mean: Vector | None = None,
) -> Found:
    """Ask and tell to the end; a vector that cannot be decoded is a failure like any other.

    Raises:
        MergeError: every candidate failed; the message has the last reason.
    """
    search.start(n_dimensions, mean)
    known: dict[str, tuple[MergeCandidate, float]] = {}
    evaluations = failures = 0
    reason = ""
    while not search.stopped:
        fitness: list[float | None] = []
        for vector in search.ask():
            evaluations += 1
            try:
                candidate = decode(vector)
                score = evaluate(candidate)
            except MergeError as error:
                score = Score(fitness=None, reason=str(error))
            fitness.append(score.fitness)
            if score.fitness is None:
                failures += 1
                reason = score.reason
            elif not score.raced_out:
                known[candidate.identity] = (candidate, score.fitness)
        search.tell(fitness)
        listener(stage, len(search.history), generations, search.best[1] if search.best else None)
    if not known:
        raise MergeError(f"{stage}: all {evaluations} candidates failed; the last one: {reason}")
    ranked = sorted(known.values(), key=lambda pair: -pair[1])
    return Found(
        stage=stage,
        ranked=tuple(ranked),
        evaluations=evaluations,
        failures=failures,
        stopped=search.stopped,
        history=tuple(search.history),
    )


def search_parameter_space(
    config: EvolutionConfig, sources: Sources, evaluate: Evaluate, listener: Listener, target: float | None = None
) -> Found:
    """CMA-ES (or the genetic search) over weights and densities."""
    space = parameter_space(config, sources)
    count = len(space.models) * space.groups

    def decode(vector: Vector) -> MergeCandidate:
        if config.coefficients == "simplex":  # the weights of one group over all models sum to one
            weights = vector[:count].reshape(len(space.models), space.groups)
            vector = np.concatenate([(weights / np.maximum(weights.sum(0), 1e-9)).reshape(-1), vector[count:]])
        return MergeCandidate(recipes=(space.decode(vector),))

    search = _cma_es(config, config.num_generations, target, 0)
    return run_search("parameter space", search, space.n_dimensions, decode, evaluate, listener, config.num_generations)


def search_layer_gate(
    config: EvolutionConfig, sources: Sources, evaluate: Evaluate, listener: Listener, target: float | None = None
) -> Found:
    """The specification's indicators and scales, depth unchanged."""
    gate = LayerGate(models=sources.models, n_layers=sources.n_layers)
    mean = np.full(gate.n_dimensions, 0.6)
    search = _cma_es(config, config.num_generations, target, 1)

    def decode(vector: Vector) -> MergeCandidate:
        return MergeCandidate(recipes=(gate.decode(vector),))

    return run_search("layer gate", search, gate.n_dimensions, decode, evaluate, listener, config.num_generations, mean)


def search_dataflow(
    config: EvolutionConfig,
    sources: Sources,
    evaluate: Evaluate,
    listener: Listener,
    first: tuple[MergeCandidate, ...] = (),
    target: float | None = None,
) -> Found:
    """Paths through a pool: the recipes of `first`, then the sources; the search starts at the pool's first model."""
    recipes = tuple(candidate.recipes[0] for candidate in first) + tuple(copy_of(name) for name in sources.models)
    flow = DataFlow(
        n_models=len(recipes), n_layers=sources.n_layers, repetitions=config.repetitions, w_mode=config.w_mode
    )
    search = _cma_es(config, config.dfs_generations, target, 2)

    def decode(vector: Vector) -> MergeCandidate:
        return MergeCandidate(recipes=recipes, path=flow.decode(vector))

    start = flow.start_vector()
    return run_search("data flow", search, flow.n_dimensions, decode, evaluate, listener, config.dfs_generations, start)


def search_pareto(
    config: EvolutionConfig, sources: Sources, evaluate: Evaluate, listener: Listener, groups: list[str]
) -> Found:
    """NSGA-II in parameter space with one objective a group of problems; `ranked` holds the front."""
    from evolution.merging.multi_objective import ParetoSearch, run_pareto

    space = parameter_space(config, sources)
    search = ParetoSearch(
        n_dimensions=space.n_dimensions,
        n_objectives=len(set(groups)),
        population_size=config.population_size or 4 + int(3 * math.log(space.n_dimensions)),
        seed=config.seed,
    )

    def decode(vector: Vector) -> MergeCandidate:
        return MergeCandidate(recipes=(space.decode(vector),))

    front, evaluations, failures = run_pareto(search, decode, evaluate, groups, config.num_generations, listener)
    return Found(
        stage="pareto",
        ranked=tuple((candidate, float(np.mean(row))) for candidate, row in front),
        evaluations=evaluations,
        failures=failures,
        stopped=f"{config.num_generations} generations are done",
        history=(float(np.mean(front[0][1])),),
        front=tuple(tuple(row) for _, row in front),
    )


def search_at_random(
    config: EvolutionConfig, sources: Sources, evaluate: Evaluate, listener: Listener, evaluations: int
) -> Found:
    """`evaluations` uniform points of the parameter space: what the same effort finds without a search."""
    space = parameter_space(config, sources)
    size = min(evaluations, 10)
    generations = math.ceil(evaluations / size)
    search = GeneticSearch(
        population_size=size, max_generations=generations, sigma=config.sigma, seed=config.seed, blind=True
    )

    def decode(vector: Vector) -> MergeCandidate:
        return MergeCandidate(recipes=(space.decode(vector),))

    return run_search("random search", search, space.n_dimensions, decode, evaluate, listener, generations)


def search_hybrid(
    config: EvolutionConfig, sources: Sources, evaluate: Evaluate, listener: Listener, target: float | None = None
) -> tuple[Found, Found]:
    """Parameter space, then data flow over its best candidates and the sources: both outcomes."""
    by_recipe = search_parameter_space(config, sources, evaluate, listener, target)
    first = tuple(candidate for candidate, _ in by_recipe.ranked[: config.ps_in_pool])
    return by_recipe, search_dataflow(config, sources, evaluate, listener, first, target)

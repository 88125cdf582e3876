"""Several objectives at once by NSGA-II (Deb et al. 2002) on the `pymoo` library: accuracy skill by skill.

One mean hides that a merge gave up a skill for the others. Here every skill (or language) of the
problems is an objective; the outcome is the front of candidates that no other one beats in all of
them, and the champion is the one of the front with the best mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.keyed_random import seed_of
from data.math_problems import MathProblem
from evolution.merging.candidate import MergeCandidate
from evolution.merging.evaluation import Score
from frameworks.merging.merge_error import MergeError

Vector = NDArray[np.float64]
_FAILED = 1e6


class ParetoSearch:
    """Ask for a generation, tell its objectives.

    Args:
        n_dimensions: of a vector in [0, 1].
        n_objectives: how many values a candidate has; all are maximised.
        population_size: candidates a generation.
        seed: of everything random.

    Raises:
        MergeError: pymoo is not installed.
    """

    def __init__(self, *, n_dimensions: int, n_objectives: int, population_size: int, seed: int) -> None:
        try:
            from pymoo.algorithms.moo.nsga2 import NSGA2
            from pymoo.core.problem import Problem
        except ModuleNotFoundError:
            raise MergeError("multi_objective needs the package pymoo; install evoscale[merge]") from None
        self._problem = Problem(n_var=n_dimensions, n_obj=n_objectives, xl=0.0, xu=1.0)
        self._algorithm: Any = NSGA2(pop_size=population_size)
        self._algorithm.setup(self._problem, termination=("n_gen", 10**9), seed=seed_of("pareto", seed) % (1 << 31))
        self._asked: Any = None

    def ask(self) -> list[Vector]:
        """The vectors of the next generation, each (n,)."""
        self._asked = self._algorithm.ask()
        return [np.asarray(row, dtype=np.float64) for row in self._asked.get("X")]

    def tell(self, objectives: Sequence[Sequence[float] | None]) -> None:
        """The objectives of the last generation, in order; None is a failure and is dominated by every other."""
        from pymoo.core.evaluator import Evaluator
        from pymoo.problems.static import StaticProblem

        lost = [_FAILED] * self._problem.n_obj
        rows = [lost if row is None else [-value for value in row] for row in objectives]
        Evaluator().eval(StaticProblem(self._problem, F=np.asarray(rows, dtype=np.float64)), self._asked)
        self._algorithm.tell(infills=self._asked)


def group_names(problems: Sequence[MathProblem]) -> list[str]:
    """The objective each problem counts for: its skill, or its language where it has none."""
    return [problem.skill or problem.language for problem in problems]


def objectives_of(score: Score, groups: Sequence[str]) -> list[float] | None:
    """Mean score of each group, by name in order; None for a failure."""
    if score.fitness is None:
        return None
    names = sorted(set(groups))
    pairs = list(zip(score.scores, groups, strict=True))
    return [float(np.mean([value for value, group in pairs if group == name])) for name in names]


def front_of(candidates: Sequence[tuple[MergeCandidate, list[float]]]) -> list[tuple[MergeCandidate, list[float]]]:
    """The candidates that no other one beats: at least as good in all objectives and better in one."""

    def beaten(row: list[float]) -> bool:
        return any(all(a >= b for a, b in zip(other, row, strict=True)) and other != row for _, other in candidates)

    return [(candidate, row) for candidate, row in candidates if not beaten(row)]


def run_pareto(
    search: ParetoSearch,
    decode: Callable[[Vector], MergeCandidate],
    evaluate: Callable[[MergeCandidate], Score],
    groups: Sequence[str],
    generations: int,
    listener: Callable[[str, int, int, float | None], None],
) -> tuple[list[tuple[MergeCandidate, list[float]]], int, int]:
    """Search for `generations`.

    Returns:
        The front with its objectives, the best mean first; evaluations; failures.

    Raises:
        MergeError: every candidate failed.
    """
    known: dict[str, tuple[MergeCandidate, list[float]]] = {}
    evaluations = failures = 0
    reason = ""
    for generation in range(1, generations + 1):
        rows: list[list[float] | None] = []
        for vector in search.ask():
            evaluations += 1
            candidate = decode(vector)
            score = evaluate(candidate)
            row = objectives_of(score, groups)
            if row is None:
                failures, reason = failures + 1, score.reason
            else:
                known[candidate.identity] = (candidate, row)
            rows.append(row)
        search.tell(rows)
        best = max((float(np.mean(row)) for _, row in known.values()), default=None)
        listener("pareto", generation, generations, best)
    if not known:
        raise MergeError(f"pareto: all {evaluations} candidates failed; the last one: {reason}")
    front = sorted(front_of(list(known.values())), key=lambda pair: -float(np.mean(pair[1])))
    return front, evaluations, failures

"""What a candidate is worth in the search, from its completed runs and the reference's.

Every fitness is an advantage over the reference in nats, positive is better, 0 for the reference
itself; `analysis.fitness` has the definitions. Only this file maps losses to OpenEvolve's
`combined_score`: reference loss over candidate loss, averaged over pairs; 1 is the reference,
0 stands for every failure.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

Cell = tuple[str, int]
"""(size, seed)."""

LEAST_SIZES = {"paired_gain": 1, "slope": 2, "extrapolated": 3}
"""Sizes each fitness needs."""


def advantage(
    name: str, reference: Mapping[Cell, float], candidate: Mapping[Cell, float], n_parameters: Mapping[str, int]
) -> float:
    """The candidate's fitness minus the reference's, over the cells the candidate was measured at.

    Args:
        name: `paired_gain`, `slope` or `extrapolated` (to ten times the largest size measured).
        reference, candidate: losses by (size, seed).
        n_parameters: non-embedding parameters of each size.

    Raises:
        ValueError: no cell, a cell the reference lacks, or fewer sizes than the fitness needs.
    """
    from analysis.fitness import fitness

    ours, theirs = _by_size(candidate, candidate), _by_size(candidate, reference)
    sizes = sorted(ours, key=lambda size: n_parameters[size])
    counts = [n_parameters[size] for size in sizes]
    means = [ours[size] for size in sizes]
    baseline = [theirs[size] for size in sizes]
    value = fitness(name, n_parameters=counts, candidate=means, reference=baseline, target=10.0 * counts[-1])
    if name == "slope":
        value -= fitness(name, n_parameters=counts, candidate=baseline, reference=baseline)
    return value


def paired_gain(reference: Mapping[Cell, float], candidate: Mapping[Cell, float]) -> float:
    """Mean over sizes of the mean paired improvement, in nats a token; positive is better.

    Raises:
        ValueError: no cell, or a cell the reference lacks.
    """
    from analysis.fitness import paired_gain as gain

    ours, theirs = _by_size(candidate, candidate), _by_size(candidate, reference)
    return gain([ours[size] for size in ours], [theirs[size] for size in ours])


def combined_score(reference: Mapping[Cell, float], candidate: Mapping[Cell, float]) -> float:
    """Mean of reference loss / candidate loss over pairs: finite, positive, 1 for the reference itself.

    Raises:
        ValueError: see `paired_gain`.
    """
    _by_size(candidate, reference)
    ratios = [reference[cell] / max(loss, 1e-6) for cell, loss in candidate.items()]
    return min(math.fsum(ratios) / len(ratios), 1e3)


def _by_size(cells: Mapping[Cell, float], losses: Mapping[Cell, float]) -> dict[str, float]:
    """Mean over seeds of `losses` at the cells given, by size."""
    if not cells:
        raise ValueError("no completed run to compare")
    collected: dict[str, list[float]] = defaultdict(list)
    for size, seed in cells:
        if (size, seed) not in losses:
            raise ValueError(f"no reference run at size {size}, seed {seed}; arms are compared in pairs only")
        collected[size].append(losses[size, seed])
    return {size: math.fsum(values) / len(values) for size, values in collected.items()}

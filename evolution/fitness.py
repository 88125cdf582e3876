"""What a candidate is worth in the search, from its completed runs and the reference's.

`paired_gain`, in nats a token, is the mean over sizes of the mean over seeds of
(reference loss - candidate loss) at equal seed and size; positive is better. Only this
file maps losses to OpenEvolve's `combined_score`: reference loss over candidate loss,
averaged over pairs; 1 is the reference, 0 stands for every failure.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

Cell = tuple[str, int]
"""(size, seed)."""


def paired_gain(reference: Mapping[Cell, float], candidate: Mapping[Cell, float]) -> float:
    """Mean over sizes of the mean paired improvement, in nats a token; positive is better.

    Raises:
        ValueError: no cell in common, or the candidate has a cell the reference lacks.
    """
    by_size: dict[str, list[float]] = defaultdict(list)
    for (size, seed), loss in candidate.items():
        if (size, seed) not in reference:
            raise ValueError(f"no reference run at size {size}, seed {seed}; arms are compared in pairs only")
        by_size[size].append(reference[size, seed] - loss)
    if not by_size:
        raise ValueError("no completed run to compare")
    return math.fsum(math.fsum(gains) / len(gains) for gains in by_size.values()) / len(by_size)


def combined_score(reference: Mapping[Cell, float], candidate: Mapping[Cell, float]) -> float:
    """Mean of reference loss / candidate loss over pairs: finite, positive, 1 for the reference itself.

    Raises:
        ValueError: see `paired_gain`.
    """
    paired_gain(reference, candidate)
    ratios = [reference[cell] / max(loss, 1e-6) for cell, loss in candidate.items()]
    return min(math.fsum(ratios) / len(ratios), 1e3)

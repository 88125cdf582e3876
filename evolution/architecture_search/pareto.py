"""Non-dominated sorting with crowding (NSGA-II, Deb et al. 2002): who is worth keeping under several costs at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = Sequence[float]


def dominates(a: Point, b: Point) -> bool:
    """Whether `a` is nowhere worse (larger) than `b` and somewhere better."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def fronts(points: Sequence[Point]) -> list[list[int]]:
    """Indices by front: the first is dominated by nobody, the next only by the first, and so on."""
    left = list(range(len(points)))
    found = []
    while left:
        front = [i for i in left if not any(dominates(points[j], points[i]) for j in left)]
        found.append(front)
        left = [i for i in left if i not in front]
    return found


def crowding(points: Sequence[Point], front: Sequence[int]) -> dict[int, float]:
    """How alone each member of a front is: its neighbours' relative gaps summed over objectives; ends are infinite."""
    distance = dict.fromkeys(front, 0.0)
    for objective in range(len(points[front[0]]) if front else 0):
        ordered = sorted(front, key=lambda i: (points[i][objective], i))
        low, high = points[ordered[0]][objective], points[ordered[-1]][objective]
        distance[ordered[0]] = distance[ordered[-1]] = math.inf
        if high > low:
            for before, here, after in zip(ordered, ordered[1:], ordered[2:], strict=False):
                distance[here] += (points[after][objective] - points[before][objective]) / (high - low)
    return distance


def promoted(points: Sequence[Point], count: int) -> list[int]:
    """The `count` indices to keep, best first; the one with the least first objective is always the first.

    Args:
        points: objectives to minimise, the same number for each.
        count: how many.
    """
    if not points:
        return []
    order = [min(range(len(points)), key=lambda i: (points[i][0], i))]
    for front in fronts(points):
        alone = crowding(points, front)
        ranked = sorted(front, key=lambda i: (-alone[i], points[i][0], i))
        order += [i for i in ranked if i not in order]
    return order[:count]

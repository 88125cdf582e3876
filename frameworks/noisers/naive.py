"""The oracle of the noisers: every member's noise materialised, every sum a loop. Slow and plain on purpose."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def noise(A: Tensor, B: Tensor | None, member: int, sigma: float) -> Tensor:
    """The matrix (out, in) that is added to a weight for `member`.

    Args:
        A: (K, out, r), or (K, out, in) where B is None.
        B: (K, in, r), or None for full-rank noise.
        member: index in [0, 2 K).
        sigma: deviation of an entry.
    """
    sign = 1.0 if member % 2 == 0 else -1.0
    pair = member // 2
    if B is None:
        return sign * sigma * A[pair]
    return sign * sigma / math.sqrt(A.shape[2]) * (A[pair] @ B[pair].T)


def weighted_sum(A: Tensor, B: Tensor | None, fitness: Tensor) -> Tensor:
    """sum_i f_i s_i E_i / |E_i|'s scale (out, in) over all members: what every update is proportional to."""
    rank = 1 if B is None else A.shape[2]
    total = torch.zeros_like(noise(A, B, 0, 1.0))
    for member in range(2 * A.shape[0]):
        total = total + float(fitness[member]) * noise(A, B, member, 1.0)
    return total * math.sqrt(rank)


def centred_ranks(values: list[float]) -> list[float]:
    """Ranks in [-0.5, 0.5]; each value counts those below it and half of those equal to it."""
    n = len(values)
    ranks = [sum(v < value for v in values) + (sum(v == value for v in values) - 1) / 2 for value in values]
    return [rank / max(n - 1, 1) - 0.5 for rank in ranks]

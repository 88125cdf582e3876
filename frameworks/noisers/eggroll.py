"""EGGROLL: evolution strategies with low-rank noise (arXiv 2511.16652).

Member i of N belongs to pair p = i // 2 and has the sign s_i: + for even i, - for odd. A pair's noise of a linear
weight W (out, in) is E = sigma / sqrt(r) A_p B_p^T with A_p (out, r), B_p (in, r) ~ N(0, 1), never materialised. The
block holds the two pure functions that say what is learnt from the members' fitness; drawing, the perturbed forward and
the loop belong to the harness.

Choices: fitness is centred within its group (members of one prompt) and divided by one global deviation, of the
centred values, so that the step has an RMS of lr * sigma whatever N, as the paper intends; a group without variance
contributes nothing. The 1/sigma of the textbook gradient is left out. The update is one GEMM a matrix.
"""

from __future__ import annotations

import math  # noqa: F401  (offered to the block)

import torch

NOISE = "low_rank"


# EVOLVE-BLOCK-START
def shape_fitness(raw, groups):
    """Fitness (N,) fp64 and group of each member (N,) int64 -> shaped fitness (N,)."""
    n_groups = int(groups.max()) + 1
    counts = torch.zeros(n_groups, dtype=raw.dtype).index_add_(0, groups, torch.ones_like(raw))
    means = torch.zeros(n_groups, dtype=raw.dtype).index_add_(0, groups, raw) / counts
    centred = raw - means[groups]
    return centred / torch.sqrt(centred.square().mean() + 1e-5)


def update(A, B, signs, fitness, sigma, lr, state):
    """A (K, out, r), B (K, in, r), signs and fitness (N,), N = 2 K -> change of the weight (out, in), new state."""
    rank = A.shape[2]
    weights = (signs * fitness).view(-1, 2).sum(1).to(A.dtype)  # (K,): a pair's two members collapsed
    left = (A * weights[:, None, None]).transpose(1, 2).flatten(0, 1)  # (K r, out)
    right = B.transpose(1, 2).flatten(0, 1)  # (K r, in)
    return (left.T @ right) * (lr * sigma / (fitness.numel() * rank) ** 0.5), state


# EVOLVE-BLOCK-END

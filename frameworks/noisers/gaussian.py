"""Gaussian: full-rank noise, z-scored fitness, a plain step (as Qiu et al. 2025, arXiv 2509.24372, do for LLMs).

The contract is that of `open_es`. Choice: the z-score is over the whole population, so on prompts of different
difficulty it measures the prompts too; antithetic pairs on one prompt take that out again, because a pair's two weights
differ in sign.
"""

from __future__ import annotations

import math  # noqa: F401  (offered to the block)

import torch

NOISE = "full_rank"


# EVOLVE-BLOCK-START
def shape_fitness(raw, groups):
    """Fitness (N,) fp64 and group of each member (N,) int64 -> z-scores (N,)."""
    centred = raw - raw.mean()
    return centred / torch.sqrt(centred.square().mean() + 1e-5)


def update(A, B, signs, fitness, sigma, lr, state):
    """A (K, out, in), B None, signs and fitness (N,), N = 2 K -> change of the weight (out, in), new state."""
    weights = (signs * fitness).view(-1, 2).sum(1).to(A.dtype)  # (K,)
    return (weights @ A.flatten(1)).view(A.shape[1:]) * (lr * sigma / fitness.numel() ** 0.5), state


# EVOLVE-BLOCK-END

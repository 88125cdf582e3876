"""OpenES: full-rank Gaussian noise, antithetic pairs, centred ranks (Salimans et al. 2017, arXiv 1703.03864).

Members come in pairs as in `eggroll`; a pair's noise is E = sigma A_p with A_p (out, in) ~ N(0, 1), so B is None and
memory is K x out x in. Choices: ranks are taken over the whole population, lie in [-0.5, 0.5], and equal values share
the average of their ranks: ranks by argsort order ties by position and so find a signal where there is none.
"""

from __future__ import annotations

import math  # noqa: F401  (offered to the block)

import torch

NOISE = "full_rank"


# EVOLVE-BLOCK-START
def shape_fitness(raw, groups):
    """Fitness (N,) fp64 and group of each member (N,) int64 -> centred ranks (N,); ties get their average."""
    _, place, counts = torch.unique(raw, return_inverse=True, return_counts=True)
    last = counts.cumsum(0)  # one more than the highest rank of each value
    average = (last - 1 + last - counts).to(raw.dtype) / 2
    return average[place] / max(raw.numel() - 1, 1) - 0.5


def update(A, B, signs, fitness, sigma, lr, state):
    """A (K, out, in), B None, signs and fitness (N,), N = 2 K -> change of the weight (out, in), new state."""
    weights = (signs * fitness).view(-1, 2).sum(1).to(A.dtype)  # (K,)
    # Centred ranks have a variance of 1/12; with it the step has an RMS of lr * sigma, as the other noisers' have.
    scale = lr * sigma * (12.0 / fitness.numel()) ** 0.5
    return (weights @ A.flatten(1)).view(A.shape[1:]) * scale, state


# EVOLVE-BLOCK-END

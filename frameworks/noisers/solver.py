"""What is done with a noiser's step: taken as it is, with momentum, or through Adam.

A noiser gives a change d of a weight whose entries have an RMS of about s = lr * sigma. The solver sees the gradient
g = d / s, of unit scale, and gives the change that is applied:

    sgd         d
    momentum    s v,                      v <- beta v + g                             (Polyak 1964)
    adam        s m^ / (sqrt(u^) + eps)   m, u: means of g and g^2, bias corrected    (Kingma & Ba 2015)

A step of momentum is up to 1 / (1 - beta) times as long as the plain one. fp32 throughout; everything is a function of
the steps so far, so a replay gives the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

SOLVERS = ("sgd", "momentum", "adam")
BETA, BETA2, EPS = 0.9, 0.99, 1e-8

SolverState = dict[str, Tensor]


def solve(solver: str, delta: Tensor, scale: float, state: SolverState) -> tuple[Tensor, SolverState]:
    """The change to apply to a weight.

    Args:
        solver: one of SOLVERS.
        delta: the noiser's step (out, in).
        scale: lr * sigma of this step, above 0.
        state: of this weight, empty at first; never changed in place.

    Returns:
        The change (out, in), and the new state.

    Raises:
        ValueError: unknown solver.
    """
    if solver == "sgd":
        return delta, state
    gradient = delta / scale
    if solver == "momentum":
        velocity = gradient if not state else BETA * state["velocity"] + gradient
        return scale * velocity, {"velocity": velocity}
    if solver != "adam":
        raise ValueError(f"unknown solver {solver!r}; allowed: {', '.join(SOLVERS)}")
    zero = torch.zeros_like(gradient)
    count = state.get("count", torch.zeros((), dtype=torch.int64)) + 1
    mean = BETA * state.get("mean", zero) + (1 - BETA) * gradient
    square = BETA2 * state.get("square", zero) + (1 - BETA2) * gradient.square()
    corrected = mean / (1 - BETA ** int(count))
    root = (square / (1 - BETA2 ** int(count))).sqrt()
    return scale * corrected / (root + EPS), {"count": count, "mean": mean, "square": square}

"""What the search maximises, in nats, positive is better. Losses come as (sizes,) or (seeds, sizes).

`paired_gain` is the default. `slope` is offered and reported, but a candidate that is worse at every size
can have the better slope, so it never decides alone. `extrapolated` is only as good as its power law.
"""

from __future__ import annotations

import difflib

import numpy as np
from numpy.typing import ArrayLike

from analysis.power_law import checked_losses, fit_log_linear, fit_power_law

FITNESS = ("paired_gain", "slope", "extrapolated")
DEFAULT_FITNESS = "paired_gain"


def paired_gain(candidate: ArrayLike, reference: ArrayLike) -> float:
    """Mean over sizes and seeds of reference loss minus candidate loss, paired, at the full horizon, nats.

    Args:
        candidate, reference: losses of the same runs, shape (sizes,) or (seeds, sizes).

    Raises:
        ValueError: the arms differ in shape, are empty, or hold a value that is not finite.
    """
    ours, theirs = np.array(candidate, dtype=np.float64), np.array(reference, dtype=np.float64)
    if ours.shape != theirs.shape or ours.size == 0:
        raise ValueError(f"arms must be paired: candidate has shape {ours.shape}, reference {theirs.shape}")
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ValueError("losses must be finite; a failed run is not a number")
    return float((theirs - ours).mean())


def slope(n_parameters: ArrayLike, candidate: ArrayLike) -> float:
    """Minus the slope of loss on ln N: nats gained for each e-fold of parameters.

    Args:
        n_parameters: sizes, shape (sizes,), at least two.
        candidate: losses, shape (sizes,) or (seeds, sizes).

    Raises:
        ValueError: as `analysis.power_law.fit_log_linear`.
    """
    return -fit_log_linear(n_parameters, candidate).slope


def extrapolated(n_parameters: ArrayLike, candidate: ArrayLike, reference: ArrayLike, *, target: float) -> float:
    """Reference's minus candidate's loss as power laws predict it at `target` parameters, nats.

    Args:
        n_parameters: sizes, shape (sizes,), at least three.
        candidate, reference: losses of the same runs, shape (sizes,) or (seeds, sizes).
        target: size to predict at, in parameters.

    Raises:
        ValueError: as `analysis.power_law.fit_power_law`, arms that differ in shape, or a target that is not positive.
    """
    if np.shape(candidate) != np.shape(reference):
        raise ValueError(
            f"arms must be paired: candidate has shape {np.shape(candidate)}, reference {np.shape(reference)}"
        )
    ours, theirs = (fit_power_law(n_parameters, losses).predict(target) for losses in (candidate, reference))
    return theirs - ours


def fitness(
    name: str, *, n_parameters: ArrayLike, candidate: ArrayLike, reference: ArrayLike, target: float | None = None
) -> float:
    """The fitness called `name`; positive is better.

    Args:
        name: one of `FITNESS`.
        n_parameters: sizes, shape (sizes,).
        candidate, reference: losses of the same runs, shape (sizes,) or (seeds, sizes).
        target: size to extrapolate to; needed for "extrapolated" only.

    Raises:
        ValueError: an unknown name (the message lists the near match and all names), no target where one is needed, or
            as the function itself.
    """
    if name == "paired_gain":
        checked_losses(n_parameters, candidate, minimum=1)
        return paired_gain(candidate, reference)
    if name == "slope":
        return slope(n_parameters, candidate)
    if name == "extrapolated":
        if target is None:
            raise ValueError("fitness 'extrapolated' needs a target size in parameters")
        return extrapolated(n_parameters, candidate, reference, target=target)
    near = difflib.get_close_matches(name, FITNESS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown fitness {name!r}{hint} Known: {', '.join(FITNESS)}")

"""Loss against size: the power law with offset, L(N) = E + A N^-alpha, and the log-linear fit beside it.

Choices: E and A are linear, so they are solved for exactly (both at least 0) inside a one-dimensional search
over alpha, a coarse grid and then golden section (variable projection, Golub and Pereyra 1973). Many data
sets are fitted at once, which is what makes a bootstrap cheap. With enough runs a Huber refit
weighs outlying runs down. Three sizes and three parameters leave nothing over: the fit is then
exact, says so, and claims no error from its residuals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.differences import FloatArray

ALPHA_LOW, ALPHA_HIGH = 0.005, 5.0
"""Range searched for the exponent."""

HUBER_K = 1.345
"""Huber's constant in robust standard deviations: 95 % efficiency on normal residuals."""

LEAST_ROBUST = 8
"""Fewest runs for a Huber refit; with fewer the residuals cannot tell an outlier from the curve."""

_GRID = np.geomspace(ALPHA_LOW, ALPHA_HIGH, 90)
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """L(N) = offset + amplitude N^-alpha, N in parameters, L in nats.

    Attributes:
        offset: E, the loss of an infinite model.
        amplitude: A.
        alpha: exponent.
        n_sizes: distinct sizes fitted.
        n_runs: losses fitted.
        exact: three sizes, as many as parameters: the curve passes through their means (unless `at_bound`) and says
            nothing about its own error.
        residual_sd: residual standard deviation, n_runs - 3 degrees of freedom; None when `exact` or without any.
        robust: whether the Huber refit was made.
        at_bound: parameters that ended on the edge of what is allowed ("offset", "amplitude", "alpha").
    """

    offset: float
    amplitude: float
    alpha: float
    n_sizes: int
    n_runs: int
    exact: bool
    residual_sd: float | None
    robust: bool
    at_bound: tuple[str, ...]

    def predict(self, n_parameters: float) -> float:
        """Predicted loss at a size, nats."""
        return self.offset + self.amplitude * math.pow(_positive(n_parameters), -self.alpha)


@dataclass(frozen=True, kw_only=True)
class LogLinear:
    """L(N) = intercept + slope ln N; right only over a narrow range of sizes."""

    intercept: float
    slope: float

    def predict(self, n_parameters: float) -> float:
        """Predicted loss at a size, nats."""
        return self.intercept + self.slope * math.log(_positive(n_parameters))


def fit_log_linear(n_parameters: ArrayLike, losses: ArrayLike) -> LogLinear:
    """Least-squares line of loss on ln N.

    Args:
        n_parameters: sizes, shape (sizes,).
        losses: shape (sizes,) or (seeds, sizes), nats.

    Raises:
        ValueError: as `checked_losses` with two sizes.
    """
    sizes, table = checked_losses(n_parameters, losses, minimum=2)
    x, y = np.log(sizes), table.mean(axis=0)
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    return LogLinear(intercept=float(y.mean() - slope * x.mean()), slope=slope)


def fit_power_law(n_parameters: ArrayLike, losses: ArrayLike, *, robust: bool = True) -> PowerLaw:
    """Least-squares power law with offset, refitted with Huber's weights when there are enough runs.

    Minimises the sum over runs of (L - E - A N^-alpha)^2 with E >= 0, A >= 0 and alpha in [0.005, 5]. Assumes runs
    independent with one variance. Source: Hoffmann et al. (2022) for the form; Huber (1981) for the weights.

    Args:
        n_parameters: sizes, shape (sizes,), at least three, all different.
        losses: shape (sizes,) or (seeds, sizes), nats.
        robust: refit with Huber's weights where there are at least `LEAST_ROBUST` runs.

    Raises:
        ValueError: as `checked_losses` with three sizes.
    """
    sizes, table = checked_losses(n_parameters, losses, minimum=3)
    parameters = fit_many(sizes, table[None], robust=robust)[0]
    offset, amplitude, alpha = (float(value) for value in parameters)
    residuals = table - (offset + amplitude * sizes**-alpha)
    exact = sizes.size == 3
    free = table.size - 3
    bounds = {"offset": offset == 0.0, "amplitude": amplitude == 0.0}
    bounds["alpha"] = alpha < ALPHA_LOW * 1.001 or alpha > ALPHA_HIGH / 1.001
    return PowerLaw(
        offset=offset,
        amplitude=amplitude,
        alpha=alpha,
        n_sizes=int(sizes.size),
        n_runs=int(table.size),
        exact=exact,
        residual_sd=None if exact or free <= 0 else math.sqrt(float((residuals**2).sum()) / free),
        robust=robust and table.size >= LEAST_ROBUST,
        at_bound=tuple(name for name, reached in bounds.items() if reached),
    )


def fit_many(n_parameters: FloatArray, losses: FloatArray, *, robust: bool = True) -> FloatArray:
    """Power laws of many data sets on the same sizes at once.

    Args:
        n_parameters: sizes, shape (sizes,), already checked.
        losses: shape (sets, seeds, sizes).
        robust: Huber refit where there are at least `LEAST_ROBUST` runs.

    Returns:
        Offset, amplitude and alpha of every set, shape (sets, 3).
    """
    n_sets, n_seeds, n_sizes = losses.shape
    middle = float(np.log(n_parameters).mean())
    z = np.tile(np.log(n_parameters) - middle, n_seeds)  # (P,), P = seeds * sizes
    y = losses.reshape(n_sets, n_seeds * n_sizes)  # (B, P)
    weights = np.ones_like(y)
    costs = np.stack([_solve(np.full(n_sets, alpha), z, y, weights)[2] for alpha in _GRID])  # (G, B)
    best = costs.argmin(axis=0)
    low, high = _GRID[np.maximum(best - 1, 0)], _GRID[np.minimum(best + 1, _GRID.size - 1)]
    alpha = _golden(low, high, z, y, weights, steps=60)
    if robust and y.shape[1] >= LEAST_ROBUST:
        for _ in range(8):
            offset, amplitude, _ = _solve(alpha, z, y, weights)
            residuals = np.abs(y - offset[:, None] - amplitude[:, None] * np.exp(-alpha[:, None] * z))
            # Robust standard deviation with the three fitted parameters paid for; 0 leaves all weights at 1.
            scale = np.median(residuals, axis=1) / 0.6745 * math.sqrt(y.shape[1] / (y.shape[1] - 3))
            cut = np.maximum(HUBER_K * scale, 1e-9 * np.abs(y).max(axis=1))[:, None]
            weights = np.minimum(1.0, cut / np.maximum(residuals, 1e-300))
            low, high = np.maximum(alpha / 1.6, ALPHA_LOW), np.minimum(alpha * 1.6, ALPHA_HIGH)
            alpha = _golden(low, high, z, y, weights, steps=40)
    offset, amplitude, _ = _solve(alpha, z, y, weights)
    return np.stack([offset, amplitude * np.exp(alpha * middle), alpha], axis=1)


def _solve(
    alpha: FloatArray, z: FloatArray, y: FloatArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Best E >= 0 and A >= 0 for given exponents, and the weighted squared error; each shape (B,)."""
    basis = np.exp(-alpha[:, None] * z)  # (B, P)
    total = weights.sum(axis=1)
    mean_b, mean_y = (weights * basis).sum(axis=1) / total, (weights * y).sum(axis=1) / total
    shifted = weights * (basis - mean_b[:, None])
    amplitude = (shifted * y).sum(axis=1) / np.maximum((shifted * basis).sum(axis=1), 1e-300)
    offset = mean_y - amplitude * mean_b
    legal = (amplitude >= 0) & (offset >= 0)
    # Outside, the best lies on an edge: no offset, or no amplitude.
    through = np.maximum(0.0, (weights * basis * y).sum(axis=1) / (weights * basis**2).sum(axis=1))
    level = np.maximum(0.0, mean_y)
    through_cost = (weights * (y - through[:, None] * basis) ** 2).sum(axis=1)
    level_cost = (weights * (y - level[:, None]) ** 2).sum(axis=1)
    flat = level_cost <= through_cost
    offset = np.where(legal, offset, np.where(flat, level, 0.0))
    amplitude = np.where(legal, amplitude, np.where(flat, 0.0, through))
    cost = (weights * (y - offset[:, None] - amplitude[:, None] * basis) ** 2).sum(axis=1)
    return offset, amplitude, cost


def _golden(
    low: FloatArray, high: FloatArray, z: FloatArray, y: FloatArray, weights: FloatArray, *, steps: int
) -> FloatArray:
    """Exponents that minimise the cost between `low` and `high`, by golden section in ln alpha; shape (B,)."""
    a, b = np.log(low), np.log(high)
    left, right = b - _GOLDEN * (b - a), a + _GOLDEN * (b - a)
    cost_left, cost_right = (_solve(np.exp(point), z, y, weights)[2] for point in (left, right))
    for _ in range(steps):
        keep_left = cost_left <= cost_right
        a, b = np.where(keep_left, a, left), np.where(keep_left, right, b)
        new = np.where(keep_left, b - _GOLDEN * (b - a), a + _GOLDEN * (b - a))
        cost_new = _solve(np.exp(new), z, y, weights)[2]
        left, right = np.where(keep_left, new, right), np.where(keep_left, left, new)
        cost_left, cost_right = np.where(keep_left, cost_new, cost_right), np.where(keep_left, cost_left, cost_new)
    return np.asarray(np.exp((a + b) / 2), dtype=np.float64)


def checked_losses(n_parameters: ArrayLike, losses: ArrayLike, *, minimum: int) -> tuple[FloatArray, FloatArray]:
    """Sizes, shape (sizes,), and losses, shape (seeds, sizes).

    Raises:
        ValueError: fewer than `minimum` sizes, sizes that repeat or are not positive, losses of another shape, or any
            value that is not finite.
    """
    sizes, table = np.array(n_parameters, dtype=np.float64), np.array(losses, dtype=np.float64)
    if sizes.ndim != 1 or sizes.size < minimum:
        raise ValueError(f"at least {minimum} sizes are needed; got shape {sizes.shape}")
    if not (np.isfinite(sizes).all() and (sizes > 0).all()) or np.unique(sizes).size != sizes.size:
        raise ValueError(f"sizes must be positive numbers of parameters, all different; got {sizes.tolist()}")
    if table.ndim == 1:
        table = table[None]
    if table.ndim != 2 or table.shape[1] != sizes.size or table.shape[0] == 0:
        raise ValueError(
            f"losses must have shape ({sizes.size},) or (seeds, {sizes.size}), one column a size; "
            f"got {np.shape(losses)}"
        )
    if not np.isfinite(table).all():
        raise ValueError(f"losses must be finite; got {table[~np.isfinite(table)][0]} (a failed run is not a number)")
    return sizes, table


def _positive(n_parameters: float) -> float:
    if not (math.isfinite(n_parameters) and n_parameters > 0):
        raise ValueError(f"a size is a positive number of parameters; got {n_parameters!r}")
    return n_parameters

"""The error rates of one set-up, from the confirmation runs of its controls.

How often would this set-up promote a null, what effect can its seeds see, and which rungs rank as the full horizon
does? The noise is that of the runs given; nothing is assumed about it but that rows are exchangeable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.calibration import SearchCalibration
from analysis.differences import FloatArray
from analysis.null_searches import simulate_null_searches
from analysis.power import least_detectable_effect, paired_power
from analysis.rank_fidelity import kendall_tau

EFFECTS = (0.5, 1.0, 1.5, 2.0, 3.0)
"""d_z at which the power is told."""


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """How a rung of one size ranks the arms: Kendall's tau with their final mean over all sizes."""

    size: str
    step: int
    tau: float


@dataclass(frozen=True, kw_only=True)
class ErrorRates:
    """Result of `error_rates`.

    Attributes:
        nulls: simulated searches among nothing but nulls; None where the runs have no spread.
        power: d_z to the power of the plan's one-sided test at its level, uncorrected.
        least_d_z: smallest d_z found with power .8.
        proxies: every rung of every size, small to large, early to late.
        n_arms, n_seeds: what was ranked.
    """

    nulls: SearchCalibration | None
    power: Mapping[float, float]
    least_d_z: float
    proxies: tuple[Proxy, ...]
    n_arms: int
    n_seeds: int


def error_rates(
    runs: Iterable[Mapping[str, Any]],
    *,
    rng: np.random.Generator,
    alpha: float,
    least_effect: float,
    shortlist: int,
    n_searches: int = 500,
) -> ErrorRates:
    """Error rates of a set-up.

    Args:
        runs: one mapping a completed run: candidate, size, seed, and `curve`, a list of [step, train loss, validation
            loss] that ends at the horizon. Candidates without every run of the first one are left out.
        rng: draws the simulated searches.
        alpha, least_effect, shortlist: as in the plan.
        n_searches: searches simulated, 40 candidates each.

    Raises:
        ValueError: fewer than two arms or two seeds with all runs.
    """
    curves: dict[str, dict[tuple[str, int], list[Any]]] = {}
    for run in runs:
        curves.setdefault(str(run["candidate"]), {})[str(run["size"]), int(run["seed"])] = list(run["curve"])
    cells = max((set(found) for found in curves.values()), key=len, default=set())
    arms = [name for name, found in curves.items() if set(found) == cells]
    sizes = list(dict.fromkeys(size for size, _ in next(iter(curves.values()), {})))
    seeds = sorted({seed for _, seed in cells})
    if len(arms) < 2 or len(seeds) < 2:
        raise ValueError(
            f"error rates need at least 2 arms and 2 seeds with all runs; got {len(arms)} and {len(seeds)}"
        )
    steps = {size: [int(point[0]) for point in curves[arms[0]][size, seeds[0]]] for size in sizes}
    losses = {  # (arms, seeds, rungs)
        size: np.array([[[point[2] for point in curves[arm][size, seed]] for seed in seeds] for arm in arms])
        for size in sizes
    }
    finals = np.stack([losses[size][:, :, -1] for size in sizes], axis=-1)  # (arms, seeds, sizes)
    noise = (finals - finals.mean(axis=1, keepdims=True)) * math.sqrt(len(seeds) / (len(seeds) - 1))
    rows = noise.reshape(-1, len(sizes))
    nulls = None
    if np.ptp(rows.mean(axis=1)) > 0:
        nulls = simulate_null_searches(
            rows,
            rng=rng,
            n_searches=n_searches,
            shortlist=shortlist,
            confirmation_seeds=len(seeds),
            alpha=alpha,
            least_effect=least_effect,
        )
    return ErrorRates(
        nulls=nulls,
        power={effect: paired_power(-effect, len(seeds), alpha=alpha, alternative="less") for effect in EFFECTS},
        least_d_z=least_detectable_effect(len(seeds), alpha=alpha, alternative="less"),
        proxies=_proxies(sizes, steps, losses, finals.mean(axis=(1, 2))),
        n_arms=len(arms),
        n_seeds=len(seeds),
    )


def _proxies(
    sizes: list[str], steps: Mapping[str, list[int]], losses: Mapping[str, FloatArray], final: FloatArray
) -> tuple[Proxy, ...]:
    return tuple(
        Proxy(size=size, step=step, tau=kendall_tau(losses[size][:, :, rung].mean(axis=1), final))
        for size in sizes
        for rung, step in enumerate(steps[size])
    )

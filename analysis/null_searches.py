"""Searches among nothing but nulls, with the noise of real runs and one reference for all candidates.

`analysis.calibration.simulate_searches` draws paired differences, as if every candidate had a reference of its own.
In a real search all candidates meet the same reference runs, so one unlucky reference flatters
all of them at once. Here losses are drawn: a noise vector (all sizes of one run) for the
reference and for each candidate at every seed, unpaired, which is the harder case: initial weights shared
between the arms would only take noise away. Confirmation seeds are fresh for every arm.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from analysis.calibration import SearchCalibration, promoted_rows, wilson_interval
from analysis.differences import FloatArray, checked_share
from analysis.learning_curves import CurveTable
from analysis.paired_tests import paired_t


def noise_of(table: CurveTable) -> FloatArray:
    """What seeds do to a loss at the full horizon: (candidates * seeds, sizes), nats.

    Each row is a run's losses at all sizes minus its candidate's means over seeds, times sqrt(S / (S - 1)), so that the
    rows have the variance of single runs although S means were taken out.
    """
    rows = []
    for size in table.sizes:
        finals = table.finals(size)  # (candidates, seeds)
        n = finals.shape[1]
        rows.append(((finals - finals.mean(axis=1, keepdims=True)) * np.sqrt(n / (n - 1))).ravel())
    return np.stack(rows, axis=1)


def simulate_null_searches(
    noise: ArrayLike,
    *,
    rng: np.random.Generator,
    n_candidates: int = 40,
    n_searches: int = 2_000,
    search_seeds: int = 2,
    shortlist: int = 2,
    confirmation_seeds: int = 6,
    alpha: float = 0.01,
    least_effect: float = 0.01,
) -> SearchCalibration:
    """False promotions of whole searches in which every candidate is the reference under another name.

    The search ranks by the mean paired gain over its seeds and sizes; the best `shortlist` that lead the reference go
    to fresh seeds, where rule 5 of `analysis.promotion.judge` decides, with Holm's correction over the shortlist.

    Args:
        noise: rows of one run's deviations at all sizes, shape (runs, sizes), nats; see `noise_of`.
        rng: draws everything, rows with replacement.
        n_candidates, n_searches, search_seeds, shortlist, confirmation_seeds: what is simulated.
        alpha, least_effect: as in the plan.

    Raises:
        ValueError: noise of another shape, without spread or not finite, or a count out of range.
    """
    table = np.array(noise, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 2 or not np.isfinite(table).all():
        raise ValueError(f"noise must be finite with shape (runs, sizes) and at least 2 runs; got shape {table.shape}")
    averaged = table.mean(axis=1)
    if np.ptp(averaged) == 0.0:
        raise ValueError("the noise has no spread; runs of an exact null say nothing about seeds")
    checked_share("alpha", alpha)
    if min(n_candidates, n_searches, search_seeds, shortlist) < 1 or confirmation_seeds < 2 or shortlist > n_candidates:
        raise ValueError(
            f"n_candidates={n_candidates}, n_searches={n_searches}, search_seeds={search_seeds}, shortlist={shortlist} "
            f"must be at least 1, shortlist at most n_candidates, confirmation_seeds={confirmation_seeds} at least 2"
        )

    def differences(arms: int, seeds: int) -> FloatArray:
        drawn = averaged[rng.integers(0, averaged.size, size=(arms + 1, seeds))]
        return np.asarray(drawn[1:] - drawn[0], dtype=np.float64)

    found = naive = tested = 0
    gain = 0.0
    for _ in range(n_searches):
        searched = differences(n_candidates, search_seeds)
        means = searched.mean(axis=1)
        order = np.argsort(means, kind="stable")
        best = order[0]
        gain -= float(means[best])
        lucky = bool(means[best] <= -least_effect)
        naive += lucky
        if lucky and search_seeds > 1:
            tested += paired_t(searched[best], alternative="less").p < alpha
        leading = int((means[order[:shortlist]] < 0).sum())
        if leading:
            fresh = differences(leading, confirmation_seeds)
            found += bool(promoted_rows(fresh, alpha=alpha, least_effect=least_effect).any())
    return SearchCalibration(
        two_stage=wilson_interval(found, n_searches),
        naive_best=wilson_interval(naive, n_searches),
        naive_tested=wilson_interval(tested, n_searches) if search_seeds > 1 else None,
        winners_gain=gain / n_searches,
        n_searches=n_searches,
        n_candidates=n_candidates,
        search_seeds=search_seeds,
        shortlist=shortlist,
        confirmation_seeds=confirmation_seeds,
    )

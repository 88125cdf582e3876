"""How often the machinery is wrong, by simulation on measured noise: pure functions, no runs.

Three questions. How often does a search among nothing but nulls end in a promotion, by the two-stage rule and by
taking the best? How well do early rungs rank what the full horizon ranks? And did every control
get the verdict that was expected of it?
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.controls import ControlReport, Misranked, control_report
from analysis.differences import FloatArray, checked_share
from analysis.multiplicity import holm
from analysis.paired_tests import sign_flip
from analysis.rank_fidelity import RankFidelity, RungFidelity, curve_table, rank_fidelity

__all__ = [
    "ControlReport",
    "Misranked",
    "RankFidelity",
    "Rate",
    "RungFidelity",
    "SearchCalibration",
    "control_report",
    "curve_table",
    "promoted_rows",
    "rank_fidelity",
    "simulate_searches",
    "wilson_interval",
]


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share of trials with Wilson's interval."""

    successes: int
    trials: int
    rate: float
    low: float
    high: float
    confidence: float


def wilson_interval(successes: int, trials: int, *, confidence: float = 0.95) -> Rate:
    """Wilson's score interval for a share.

    Centre (p + z^2 / 2n) / (1 + z^2 / n), half-width z sqrt(p (1 - p) / n + z^2 / 4n^2) / (1 + z^2 / n). Unlike
    p -+ z sqrt(p (1 - p) / n) it is sensible at 0 and at 1. Source: Wilson (1927).

    Raises:
        ValueError: no trial, successes outside 0 to trials, or a confidence outside (0, 1).
    """
    checked_share("confidence", confidence)
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            f"successes must lie between 0 and trials, and trials be positive; got {successes} of {trials}"
        )
    from scipy.special import ndtri

    z = float(ndtri((1 + confidence) / 2))
    p, shrink = successes / trials, 1 + z**2 / trials
    centre = (p + z**2 / (2 * trials)) / shrink
    half = z * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2)) / shrink
    return Rate(
        successes=successes,
        trials=trials,
        rate=p,
        low=0.0 if successes == 0 else max(0.0, centre - half),
        high=1.0 if successes == trials else min(1.0, centre + half),
        confidence=confidence,
    )


@dataclass(frozen=True, kw_only=True)
class SearchCalibration:
    """Result of `simulate_searches`: shares of searches among nulls that ended in a discovery.

    Attributes:
        two_stage: search, shortlist, fresh seeds, the promotion rule.
        naive_best: the best of the search has a mean gain of at least the least effect; the usual practice.
        naive_tested: as `naive_best`, and its own paired t on the search seeds has one-sided p below alpha,
            uncorrected; None with one search seed, where there is no test.
        winners_gain: mean gain the best candidate shows in the search, nats; its true gain is 0.
        n_searches, n_candidates, search_seeds, shortlist, confirmation_seeds: what was simulated.
    """

    two_stage: Rate
    naive_best: Rate
    naive_tested: Rate | None
    winners_gain: float
    n_searches: int
    n_candidates: int
    search_seeds: int
    shortlist: int
    confirmation_seeds: int


def simulate_searches(
    null_differences: ArrayLike,
    *,
    rng: np.random.Generator,
    n_candidates: int = 40,
    n_searches: int = 1_000,
    search_seeds: int = 2,
    shortlist: int = 4,
    confirmation_seeds: int = 6,
    alpha: float = 0.01,
    least_effect: float = 0.01,
) -> SearchCalibration:
    """False promotions of whole searches in which every candidate is a null.

    A candidate's seeds are rows of the table, drawn without replacement where there are enough, each with a random sign
    (null and reference are exchangeable, which makes the null exact however few rows there are); the sizes of a row
    stay together. The search ranks by the mean over its seeds and sizes; the best `shortlist` go to fresh seeds,
    where rule 5 of `analysis.promotion.judge` decides. Both practices see the same search.

    Args:
        null_differences: null minus reference losses, shape (runs, sizes) or (runs,), nats, at least two runs.
        rng: draws everything.
        n_candidates: candidates of a search.
        n_searches: searches simulated.
        search_seeds: seeds a candidate gets in the search.
        shortlist: candidates confirmed, at most `n_candidates`.
        confirmation_seeds: fresh seeds, at least two.
        alpha, least_effect: as in the plan.

    Raises:
        ValueError: a table of another shape, with fewer than two runs or with a value that is not finite, or a count
            that is out of range.
    """
    table = np.array(null_differences, dtype=np.float64)
    if table.ndim not in (1, 2) or table.shape[0] < 2 or table.size == 0:
        raise ValueError(f"null differences must have shape (runs, sizes) with at least 2 runs; got {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("null differences must be finite; a failed run is not a number")
    counts = {"n_candidates": n_candidates, "n_searches": n_searches, "search_seeds": search_seeds}
    for name, count in {**counts, "shortlist": shortlist}.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1; got {count}")
    if shortlist > n_candidates or confirmation_seeds < 2:
        raise ValueError(
            f"shortlist ({shortlist}) must not exceed n_candidates ({n_candidates}), and confirmation_seeds "
            f"({confirmation_seeds}) must be at least 2"
        )
    checked_share("alpha", alpha)
    averaged = table if table.ndim == 1 else table.mean(axis=1)  # (runs,)

    def draw(candidates: int, seeds: int) -> FloatArray:
        if seeds <= averaged.size:
            rows = rng.random((candidates, averaged.size)).argsort(axis=1)[:, :seeds]
        else:
            rows = rng.integers(0, averaged.size, size=(candidates, seeds))
        return np.asarray(averaged[rows] * rng.choice([-1.0, 1.0], size=rows.shape), dtype=np.float64)

    found = naive = tested = 0
    gain = 0.0
    for _ in range(n_searches):
        searched = draw(n_candidates, search_seeds)
        means = searched.mean(axis=1)
        order = np.argsort(means, kind="stable")
        best = order[0]
        gain -= float(means[best])
        lucky = bool(means[best] <= -least_effect)
        naive += lucky
        if lucky and search_seeds > 1:
            tested += bool(_one_sided_p(searched[best : best + 1])[0] < alpha)
        found += bool(promoted_rows(draw(shortlist, confirmation_seeds), alpha=alpha, least_effect=least_effect).any())
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


def promoted_rows(differences: FloatArray, *, alpha: float, least_effect: float) -> NDArray[np.bool_]:
    """Rule 5 of `analysis.promotion.judge` on many candidates at once; parameters and guards taken as passed.

    Args:
        differences: size-averaged candidate minus reference, shape (candidates, seeds).
        alpha, least_effect: as in the plan.

    Returns:
        Whether each candidate is promoted, shape (candidates,).
    """
    corrected = holm(_one_sided_p(differences))
    promoted = (corrected < alpha) & (differences.mean(axis=1) <= -least_effect)
    attainable = max(alpha, 2.0 ** -differences.shape[1])
    for index in np.flatnonzero(promoted):
        promoted[index] = sign_flip(differences[index], alternative="less").p <= attainable
    return np.asarray(promoted, dtype=np.bool_)


def _one_sided_p(differences: FloatArray) -> FloatArray:
    """One-sided paired-t p-values (lower is better) of each row, as `paired_t`, also without spread."""
    from scipy.special import stdtr

    n = differences.shape[1]
    mean, sd = differences.mean(axis=1), differences.std(axis=1, ddof=1)
    flat = np.ptp(differences, axis=1) == 0.0
    t = mean / np.where(flat, 1.0, sd) * math.sqrt(n)
    p = np.where(flat, np.where(mean < 0, 0.0, 1.0), stdtr(n - 1, t))
    return np.asarray(p, dtype=np.float64)

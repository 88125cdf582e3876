"""A linear mixed model of all losses at once: candidates, sizes, and what seeds share.

It uses every run, also when arms or sizes have different numbers of seeds, and shows whether a
candidate's effect changes with size. It is for looking, not for promoting: its p-values use
the normal distribution, which is too sure of itself at six seeds; the promotion rule's paired t is not.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.differences import CONSTANT, EXACT_NULL, ORDINARY, FloatArray, Spread, checked_share

_FLAT = 1e-12
"""A residual spread below this share of the spread of the losses is rounding."""


@dataclass(frozen=True, kw_only=True)
class MixedEffect:
    """One candidate against the reference.

    Attributes:
        candidate: its id.
        effect: mean over sizes of candidate minus reference loss, nats.
        standard_error: of `effect`.
        p: two-sided, normal.
        low, high: interval.
        p_interaction: Wald chi-squared test that the effect is the same at all sizes; None with one size.
        spread: "ordinary", or which shape without spread the residuals have.
    """

    candidate: str
    effect: float
    standard_error: float
    p: float
    low: float
    high: float
    p_interaction: float | None
    spread: Spread


@dataclass(frozen=True, kw_only=True)
class MixedModel:
    """Result of `mixed_model`.

    Attributes:
        reference: id of the reference arm.
        n_runs, n_seeds, n_sizes: what it was fitted to.
        effects: one per candidate, in the order of first appearance.
        seed_sd, seed_size_sd, seed_candidate_sd, residual_sd: standard deviations of the random parts, nats.
        confidence: level of the intervals.
        converged: whether the optimiser said so; False means do not trust the standard errors.
    """

    reference: str
    n_runs: int
    n_seeds: int
    n_sizes: int
    effects: tuple[MixedEffect, ...]
    seed_sd: float
    seed_size_sd: float
    seed_candidate_sd: float
    residual_sd: float
    confidence: float
    converged: bool


def mixed_model(rows: Iterable[Mapping[str, Any]], *, reference: str, confidence: float = 0.95) -> MixedModel:
    """Fits loss = size + candidate + candidate:size + seed + seed:size + seed:candidate + rest, by REML.

    Sizes are sum-coded, so a candidate's coefficient is its mean effect over sizes. The parts with a seed are random
    and normal: seed:size is what two arms share by pairing, seed:candidate lets a candidate's effect differ by
    seed. In balanced data with one candidate the effect and, away from zero variances, its standard error are those
    of the paired t test on size-averaged differences. Source: Laird and Ware (1982); Pinheiro and Bates (2000);
    fitted by statsmodels' MixedLM.

    Args:
        rows: one mapping per run with candidate, size, seed and val_loss; every run completed.
        reference: id of the reference arm.
        confidence: level of the intervals.

    Raises:
        ValueError: no reference or no candidate, fewer than two seeds, a run given twice, a loss that is not a finite
            number, a candidate that was not run at some size, or data on which the model cannot be fitted.
    """
    checked_share("confidence", confidence)
    runs = _runs(rows)
    names = list(dict.fromkeys(candidate for candidate, _, _ in runs))
    sizes = list(dict.fromkeys(size for _, size, _ in runs))
    seeds = list(dict.fromkeys(seed for _, _, seed in runs))
    if reference not in names:
        raise ValueError(f"no run of the reference {reference!r}; candidates seen: {', '.join(names)}")
    if len(names) < 2 or len(seeds) < 2:
        raise ValueError(f"a candidate and two seeds are needed; got arms {', '.join(names)} and {len(seeds)} seed(s)")
    for name in names:
        absent = [size for size in sizes if not any(key[:2] == (name, size) for key in runs)]
        if absent:
            raise ValueError(f"{name!r} has no run at size {absent[0]!r}, so its effect there cannot be fitted")
    candidates = [name for name in names if name != reference]
    losses = np.array(list(runs.values()))
    design = _design(list(runs), candidates, sizes)
    fit = _fit(list(runs), losses, design)
    return MixedModel(
        reference=reference,
        n_runs=len(runs),
        n_seeds=len(seeds),
        n_sizes=len(sizes),
        effects=tuple(
            _effect(fit, name, 1 + (len(sizes) - 1) + i * len(sizes), len(sizes), confidence)
            for i, name in enumerate(candidates)
        ),
        seed_sd=math.sqrt(fit.variances[0]),
        seed_size_sd=math.sqrt(fit.variances[1]),
        seed_candidate_sd=math.sqrt(fit.variances[2]),
        residual_sd=math.sqrt(fit.variances[3]),
        confidence=confidence,
        converged=fit.converged,
    )


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """Fixed effects (columns,), their covariance (columns, columns), four variances, and whether it converged."""

    coefficients: FloatArray
    covariance: FloatArray
    variances: tuple[float, ...]
    converged: bool
    flat: bool


def _runs(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, int], float]:
    runs: dict[tuple[str, str, int], float] = {}
    for row in rows:
        key = (row["candidate"], row["size"], row["seed"])
        loss = row["val_loss"]
        if key in runs:
            raise ValueError(f"the run of {key[0]!r} at size {key[1]!r}, seed {key[2]} is given twice")
        if not isinstance(loss, int | float) or not math.isfinite(loss):
            raise ValueError(f"the run of {key[0]!r} at size {key[1]!r}, seed {key[2]} has val_loss {loss!r}")
        runs[key] = float(loss)
    return runs


def _design(keys: list[tuple[str, str, int]], candidates: list[str], sizes: list[str]) -> FloatArray:
    """Fixed effects, shape (runs, columns): 1, sizes (sum-coded), then per candidate its mean effect and size codes."""
    last = len(sizes) - 1
    codes = np.vstack([np.eye(last), -np.ones((1, last))]) if last else np.zeros((1, 0))
    lines = []
    for candidate, size, _ in keys:
        code = codes[sizes.index(size)]
        own = [np.concatenate([[1.0], code]) * float(candidate == name) for name in candidates]
        lines.append(np.concatenate([[1.0], code, *own]))
    return np.array(lines)


def _fit(keys: list[tuple[str, str, int]], losses: FloatArray, design: FloatArray) -> _Fit:
    columns = design.shape[1]
    coefficients: FloatArray = np.asarray(np.linalg.lstsq(design, losses, rcond=None)[0], dtype=np.float64)
    pairs: dict[tuple[str, int], list[float]] = {(size, seed): [] for _, size, seed in keys}
    for (_, size, seed), rest in zip(keys, losses - design @ coefficients, strict=True):
        pairs[size, seed].append(rest)
    # What is left inside a pair once candidates and sizes are taken out; without any, REML has nothing to weigh.
    inside = max(float(np.ptp(rests)) for rests in pairs.values())
    if inside <= _FLAT * max(1.0, float(np.abs(losses).max())):
        return _Fit(
            coefficients=coefficients,
            covariance=np.zeros((columns, columns)),
            variances=(0.0, 0.0, 0.0, 0.0),
            converged=True,
            flat=True,
        )
    import pandas as pd
    from statsmodels.formula.api import mixedlm

    # In units of what the fixed effects leave over, so that the optimiser's tolerances fit any loss.
    unit = float((losses - design @ coefficients).std())
    frame = pd.DataFrame(design, columns=[f"x{i}" for i in range(columns)])
    frame["loss"] = losses / unit
    for i, name in enumerate(("arm", "size", "seed")):
        frame[name] = [str(key[i]) for key in keys]
    parts = {"arm": "0 + C(arm)", "size": "0 + C(size)"} if len({key[1] for key in keys}) > 1 else {}
    formula = "loss ~ 0 + " + " + ".join(f"x{i}" for i in range(columns))
    fits = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a variance of zero is an answer here, and `converged` reports the rest
        model = mixedlm(formula, frame, groups="seed", re_formula="1", vc_formula=parts or None)
        # A gradient method alone stops on plateaus of the restricted likelihood, so the best of two is kept.
        for method in ("lbfgs", "powell"):
            try:
                fits.append(model.fit(reml=True, method=[method]))
            except np.linalg.LinAlgError:
                continue
    fits = [fit for fit in fits if math.isfinite(fit.llf)]
    if not fits:
        raise ValueError(f"the mixed model cannot be fitted to these {len(keys)} runs: a covariance is singular")
    result = max(fits, key=lambda fit: float(fit.llf))
    arm_variance, size_variance = (float(value) for value in result.vcomp) if parts else (0.0, 0.0)
    seed_variance = float(np.asarray(result.cov_re)[0, 0])
    variances = (seed_variance, size_variance, arm_variance, float(result.scale))
    return _Fit(
        coefficients=np.asarray(result.fe_params, dtype=np.float64) * unit,
        covariance=np.asarray(result.cov_params(), dtype=np.float64)[:columns, :columns] * unit**2,
        variances=tuple(variance * unit**2 for variance in variances),
        converged=bool(result.converged),
        flat=False,
    )


def _effect(fit: _Fit, name: str, start: int, n_sizes: int, confidence: float) -> MixedEffect:
    from scipy.stats import chi2, norm

    effect = float(fit.coefficients[start])
    own = slice(start + 1, start + n_sizes)
    if fit.flat:
        nothing = abs(effect) <= _FLAT
        same = bool(np.all(np.abs(fit.coefficients[own]) <= _FLAT))
        return MixedEffect(
            candidate=name,
            effect=0.0 if nothing else effect,
            standard_error=0.0,
            p=1.0 if nothing else 0.0,
            low=0.0 if nothing else effect,
            high=0.0 if nothing else effect,
            p_interaction=None if n_sizes == 1 else float(same),
            spread=EXACT_NULL if nothing and same else CONSTANT,
        )
    error = math.sqrt(float(fit.covariance[start, start]))
    if not math.isfinite(error) or error == 0.0:
        raise ValueError(f"the mixed model gives no standard error for {name!r}; use the paired tests")
    reach = error * float(norm.ppf((1 + confidence) / 2))
    bends = fit.coefficients[own]
    p_interaction = None
    if n_sizes > 1:
        wald = float(bends @ np.linalg.solve(fit.covariance[own, own], bends))
        p_interaction = float(chi2.sf(wald, n_sizes - 1))
    return MixedEffect(
        candidate=name,
        effect=effect,
        standard_error=error,
        p=float(2 * norm.sf(abs(effect) / error)),
        low=effect - reach,
        high=effect + reach,
        p_interaction=p_interaction,
        spread=ORDINARY,
    )

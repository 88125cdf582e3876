"""Promotion: the one place where a candidate becomes a discovery, or does not.

`judge` takes a predeclared plan and the rows of its confirmation runs, and returns one verdict per
candidate. It computes; it does not decide what is run, and it never sees search results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from analysis.confirmation_table import ConfirmationTable, confirmation_table
from analysis.differences import FloatArray
from analysis.effect_sizes import d_z, probability_better
from analysis.multiplicity import holm
from analysis.paired_tests import paired_t, sign_flip
from analysis.promotion_plan import PromotionPlan
from analysis.promotion_rule import rule_on
from analysis.verdict import Evidence, SizeEffect, Verdict

__all__ = ["Evidence", "PromotionPlan", "SizeEffect", "Verdict", "judge"]


def judge(
    plan: PromotionPlan, rows: Iterable[Mapping[str, Any]], guard_failures: Mapping[str, str] | None = None
) -> list[Verdict]:
    """Verdicts on the whole shortlist of `plan`, in its order.

    The primary statistic is, per seed, the mean over sizes of candidate loss minus reference loss (negative is
    better). n is the number of seeds, m the length of the shortlist. The first rule that applies decides:

    1. rejected: a guard failed (`guard_failures`), or a confirmation run ended as Rejected.
    2. not promoted: a confirmation run did not complete.
    3. not promoted: parameters exceed `max_parameter_ratio` times the reference's at any size.
    4. not promoted: every difference at every seed and size is exactly 0 (the same function).
    5. promoted: Holm-corrected one-sided paired-t p < alpha, and mean <= -least_effect, and one-sided exact
       sign-flip p <= max(alpha, 2^-n) (the least p that n pairs can attain, where that is above alpha).
    6. undecided: the two-sided (1 - alpha) interval still holds a useful effect (its lower end <= -least_effect).
       With it the interval holds 0 or the negligible region; or it does not, and the correction for m candidates or
       the sign flips stand against the promotion. `more_seeds` says how many further pairs decide with power .8 if
       mean and spread stay as seen: for a mean <= -least_effect, until the t test at alpha / m finds it; for any
       other mean, until the interval's lower end rises above -least_effect.
    7. not promoted: the interval excludes every useful effect.

    A candidate without a p-value (rejected or failed) stays in Holm's family with p = 1. Runs are paired by seed;
    the t test assumes that size-averaged differences are independent over seeds and near normal.

    Args:
        plan: the predeclared plan.
        rows: one mapping per run: candidate, size, seed, status, val_loss (None unless Completed), n_parameters, and
            where known flops, cpu_seconds, peak_memory_bytes, reason, split, corpus_hash.
        guard_failures: candidate id -> why a guard rejected it; its runs may then be missing.

    Raises:
        ValueError: a run is missing, double or not in the plan, a value is not legal, splits or corpora are mixed, the
            reference failed a run or a guard, or `guard_failures` names an unknown candidate.
    """
    failed_guards = dict(guard_failures or {})
    for name in failed_guards:
        if name not in plan.shortlist:
            place = "is the reference" if name == plan.reference else "is not on the shortlist"
            raise ValueError(f"guard_failures names {name!r}, which {place}; shortlist: {', '.join(plan.shortlist)}")
    table = confirmation_table(plan, rows, excused=failed_guards)
    evidence = {name: _evidence(table, name) for name in plan.shortlist}
    raw = {name: None if name in failed_guards else evidence[name].p_t for name in plan.shortlist}
    corrected = holm([1.0 if p is None else p for p in raw.values()])
    verdicts = []
    for (name, p), p_holm in zip(raw.items(), corrected, strict=True):
        numbers = evidence[name] if p is None else replace(evidence[name], p_holm=float(p_holm))
        ruling = rule_on(plan, numbers, failed_guards.get(name))
        verdicts.append(
            Verdict(
                candidate=name,
                decision=ruling.decision,
                sentence=ruling.sentence,
                rule=ruling.rule,
                more_seeds=ruling.more_seeds,
                plan_hash=plan.hash,
                evidence=numbers,
            )
        )
    return verdicts


def _evidence(table: ConfirmationTable, candidate: str) -> Evidence:
    """Everything but `p_holm`, which needs the whole shortlist."""
    plan = table.plan
    confidence = 1.0 - plan.alpha
    failures = table.failures(candidate)
    if failures or not table.is_complete(candidate):
        return Evidence(
            n_pairs=0,
            n_sizes=len(plan.sizes),
            least_effect=plan.least_effect,
            alpha=plan.alpha,
            confidence=confidence,
            failures=failures,
        )
    by_size = table.losses(candidate) - table.losses(plan.reference)  # (seeds, sizes)
    differences = by_size.mean(axis=1)  # (seeds,)
    parameter_ratios = table.parameters(candidate) / table.parameters(plan.reference)  # (sizes,)
    interval = paired_t(differences, confidence=confidence)
    test = paired_t(differences, alternative="less", confidence=confidence)
    effect = d_z(differences, confidence=confidence)
    better = probability_better(differences, confidence=confidence)
    return Evidence(
        n_pairs=interval.n,
        n_sizes=len(plan.sizes),
        least_effect=plan.least_effect,
        alpha=plan.alpha,
        confidence=confidence,
        same_function=not by_size.any(),
        differences=tuple(float(value) for value in differences),
        mean_difference=interval.mean,
        sd=interval.sd,
        low=interval.low,
        high=interval.high,
        upper_bound=test.high,
        p_t=test.p,
        p_sign_flip=_sign_flip_p(differences, plan),
        d_z=effect.d_z,
        d_z_low=effect.low,
        d_z_high=effect.high,
        probability_better=better.p,
        probability_better_low=better.low,
        probability_better_high=better.high,
        per_size=tuple(
            _size_effect(size, by_size[:, column], confidence, float(parameter_ratios[column]))
            for column, size in enumerate(plan.sizes)
        ),
        parameter_ratio=float(parameter_ratios.max()),
        flops_ratio=_ratio(table, candidate, "flops", np.sum),
        cpu_seconds_ratio=_ratio(table, candidate, "cpu_seconds", np.sum),
        peak_memory_ratio=_ratio(table, candidate, "peak_memory_bytes", np.max),
    )


def _sign_flip_p(differences: FloatArray, plan: PromotionPlan) -> float:
    # Above the exact limit flips are drawn; keyed by the plan, so that judging twice gives the same verdict.
    rng = np.random.default_rng(int(plan.hash[:16], 16))
    return sign_flip(differences, alternative="less", rng=rng).p


def _size_effect(size: str, differences: FloatArray, confidence: float, parameter_ratio: float) -> SizeEffect:
    interval = paired_t(differences, confidence=confidence)
    return SizeEffect(
        size=size,
        mean_difference=interval.mean,
        low=interval.low,
        high=interval.high,
        p_t=paired_t(differences, alternative="less").p,
        d_z=None if interval.sd == 0.0 else interval.mean / interval.sd,
        parameter_ratio=parameter_ratio,
    )


def _ratio(table: ConfirmationTable, candidate: str, name: str, total: Callable[[FloatArray], Any]) -> float | None:
    """Candidate's total cost over the reference's; None where a run did not report it or the reference's is 0."""
    ours, theirs = table.costs(candidate, name), table.costs(table.plan.reference, name)
    if ours is None or theirs is None or float(total(theirs)) == 0.0:
        return None
    return float(total(ours)) / float(total(theirs))

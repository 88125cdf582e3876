"""What the statistics say of a candidate against its reference, with the evidence."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

Decision = Literal["promoted", "not promoted", "undecided", "rejected"]
DECISIONS: tuple[Decision, ...] = ("promoted", "not promoted", "undecided", "rejected")


@dataclass(frozen=True, kw_only=True)
class SizeEffect:
    """The paired difference at one size: secondary evidence, not corrected for looking at several sizes.

    Attributes:
        size: name of the size.
        mean_difference: candidate minus reference, nats.
        low, high: two-sided paired-t interval at the evidence's confidence.
        p_t: one-sided paired t (candidate lower).
        d_z: standardised difference; None without spread.
        parameter_ratio: candidate's parameters over the reference's at this size.
    """

    size: str
    mean_difference: float
    low: float
    high: float
    p_t: float
    d_z: float | None
    parameter_ratio: float


@dataclass(frozen=True, kw_only=True)
class RunFailure:
    """A confirmation run that did not complete.

    Attributes:
        size, seed: which run.
        status: how it ended (`Crashed`, `Diverged`, `TimedOut`, `OutOfMemory` or `Rejected`).
        reason: what the run said, empty when it said nothing.
    """

    size: str
    seed: int
    status: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The numbers behind a verdict. None means not measured, never zero.

    Attributes:
        n_pairs: paired seeds in the primary statistic; 0 when a run failed.
        n_sizes: sizes averaged over.
        least_effect: the plan's smallest useful gain, nats.
        alpha: the plan's level.
        confidence: level of all intervals here (1 - alpha).
        same_function: every difference at every seed and size is exactly 0.
        differences: size-averaged candidate minus reference, one per seed, in the plan's order, nats.
        mean_difference, sd: their mean and standard deviation.
        low, high: two-sided paired-t interval of the mean.
        upper_bound: one-sided paired-t bound: the mean lies below it.
        p_t: one-sided paired t.
        p_sign_flip: one-sided exact sign flip.
        p_holm: `p_t` corrected over the shortlist; None for a rejected or failed candidate.
        d_z, d_z_low, d_z_high: standardised difference with its noncentral-t interval; None without spread.
        probability_better, probability_better_low, probability_better_high: P(lower loss in a fresh pair).
        per_size: one `SizeEffect` per size, in the plan's order.
        parameter_ratio: largest over sizes of candidate over reference parameters.
        flops_ratio, cpu_seconds_ratio: candidate total over reference total, all confirmation runs.
        peak_memory_ratio: largest peak over largest peak.
        failures: runs that did not complete.
    """

    n_pairs: int
    n_sizes: int
    least_effect: float
    alpha: float
    confidence: float
    same_function: bool = False
    differences: tuple[float, ...] = ()
    mean_difference: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    upper_bound: float | None = None
    p_t: float | None = None
    p_sign_flip: float | None = None
    p_holm: float | None = None
    d_z: float | None = None
    d_z_low: float | None = None
    d_z_high: float | None = None
    probability_better: float | None = None
    probability_better_low: float | None = None
    probability_better_high: float | None = None
    per_size: tuple[SizeEffect, ...] = ()
    parameter_ratio: float | None = None
    flops_ratio: float | None = None
    cpu_seconds_ratio: float | None = None
    peak_memory_ratio: float | None = None
    failures: tuple[RunFailure, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A decision on one candidate of a plan.

    Attributes:
        candidate: its id.
        decision: "promoted", "not promoted", "undecided" or "rejected".
        sentence: one plain sentence with the interval and the rule met.
        rule: short name of the rule that decided, for counting and filtering.
        more_seeds: for "undecided": further paired seeds that would decide with power .8 if mean and spread stay as
            they are; None when more than 10,000, and for every other decision.
        plan_hash: the plan it was judged under.
        evidence: the numbers.
    """

    candidate: str
    decision: Decision
    sentence: str
    rule: str
    more_seeds: int | None
    plan_hash: str
    evidence: Evidence

    def to_json(self) -> dict[str, Any]:
        """The verdict as JSON values, all finite."""
        return dataclasses.asdict(self, dict_factory=_plain)


def _plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in items}

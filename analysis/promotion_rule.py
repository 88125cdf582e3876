"""The rule of promotion, applied to finished evidence, and the sentence that says which part of it decided.

`analysis.promotion.judge` states the rule in full; the functions here follow its order.
"""

from __future__ import annotations

from dataclasses import dataclass

from analysis.power import pairs_needed
from analysis.promotion_plan import PromotionPlan
from analysis.verdict import Decision, Evidence, RunFailure

DECIDING_POWER = 0.8
"""Power with which the seeds named by "undecided" would decide."""

MOST_MORE_SEEDS = 10_000
"""Above this, "undecided" says so instead of naming a number."""


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """A decision with its sentence, the short name of the rule, and for "undecided" the seeds still needed."""

    decision: Decision
    rule: str
    sentence: str
    more_seeds: int | None = None


def rule_on(plan: PromotionPlan, evidence: Evidence, guard_reason: str | None = None) -> Ruling:
    """The ruling on one candidate; `guard_reason` says why a guard rejected it, None when none did."""
    refused = [failure for failure in evidence.failures if failure.status == "Rejected"]
    if guard_reason is not None:
        return Ruling(decision="rejected", rule="guard", sentence=f"Rejected: {_clause(guard_reason)}.")
    if refused:
        return Ruling(
            decision="rejected",
            rule="guard",
            sentence=f"Rejected: a guard stopped the confirmation run at {_where(refused[0])}.",
        )
    if evidence.failures:
        runs = len(plan.sizes) * len(plan.seeds)
        return Ruling(
            decision="not promoted",
            rule="failed run",
            sentence=f"Not promoted: {len(evidence.failures)} of {runs} confirmation runs did not complete, "
            f"first {_where(evidence.failures[0])}.",
        )
    return _rule_on_numbers(plan, evidence)


def _rule_on_numbers(plan: PromotionPlan, evidence: Evidence) -> Ruling:
    mean, low, high = _number(evidence.mean_difference), _number(evidence.low), _number(evidence.high)
    p_holm, p_sign_flip = _number(evidence.p_holm), _number(evidence.p_sign_flip)
    ratio = _number(evidence.parameter_ratio)
    attainable = max(plan.alpha, 2.0**-evidence.n_pairs)
    useful = mean <= -plan.least_effect
    seen = _difference(plan, evidence)
    if ratio > plan.max_parameter_ratio:
        return Ruling(
            decision="not promoted",
            rule="parameters",
            sentence=f"Not promoted: it has {ratio:.4g} times the reference's parameters where "
            f"{plan.max_parameter_ratio:.4g} is allowed, so {seen} is no fair comparison.",
        )
    if evidence.same_function:
        return Ruling(
            decision="not promoted",
            rule="same function",
            sentence=f"Not promoted: its loss equals the reference's exactly at all {evidence.n_pairs} seeds and "
            f"{_sizes(evidence)}, so it is the same function.",
        )
    if useful and p_holm < plan.alpha and p_sign_flip <= attainable:
        return Ruling(
            decision="promoted",
            rule="promoted",
            sentence=f"Promoted: {seen} reaches the least useful gain of {plan.least_effect:.4g}, with "
            f"{_corrected(plan)} {p_holm:.2g} below {plan.alpha:.4g} and {ratio:.3f} times the "
            f"parameters{_constant_warning(evidence)}{_size_warning(evidence)}.",
        )
    if low <= -plan.least_effect:
        return _undecided(plan, evidence, mean, high, p_holm, p_sign_flip)
    if high < 0:
        rule, reading = "too small", f"is a real gain, but below the least useful one of {plan.least_effect:.4g}"
    elif low > 0:
        rule, reading = "worse", "is a loss: the candidate is worse than the reference"
    else:
        rule, reading = "no useful effect", f"excludes a useful gain of {plan.least_effect:.4g} or more"
    return Ruling(decision="not promoted", rule=rule, sentence=f"Not promoted: {seen} {reading}.")


def _undecided(
    plan: PromotionPlan, evidence: Evidence, mean: float, high: float, p_holm: float, p_sign_flip: float
) -> Ruling:
    gain = f"a useful gain of {plan.least_effect:.4g} or more"
    if high >= 0:
        rule, why = "interval", f"allows both nothing and {gain}"
    elif high > -plan.least_effect:
        rule, why = "interval", f"allows both a negligible gain and {gain}"
    elif p_holm >= plan.alpha:
        rule = "correction"
        why = f"would be useful, but {_corrected(plan)} {p_holm:.2g} is not below {plan.alpha:.4g}"
    else:
        rule = "sign flip"
        why = f"would be useful, but the sign-flip test stands against it (p = {p_sign_flip:.2g})"
    more = _more_seeds(plan, evidence, mean)
    wanted = f"about {more:,}" if more is not None else f"more than {MOST_MORE_SEEDS:,}"
    seeds = "seed" if more == 1 else "seeds"
    return Ruling(
        decision="undecided",
        rule=rule,
        more_seeds=more,
        sentence=f"Undecided: {_difference(plan, evidence)} {why}; {wanted} more {seeds} would decide with power "
        f"{DECIDING_POWER:.2g} if mean and spread stay as they are.",
    )


def _more_seeds(plan: PromotionPlan, evidence: Evidence, mean: float) -> int | None:
    sd = _number(evidence.sd)
    if sd == 0.0:
        return None
    if mean <= -plan.least_effect:
        level = plan.alpha / len(plan.shortlist)
        pairs = pairs_needed(mean / sd, power=DECIDING_POWER, alpha=level, alternative="less")
    else:
        above = (mean + plan.least_effect) / sd
        pairs = pairs_needed(above, power=DECIDING_POWER, alpha=plan.alpha / 2, alternative="greater")
    if pairs is None or pairs - evidence.n_pairs > MOST_MORE_SEEDS:
        return None
    return max(1, pairs - evidence.n_pairs)


def _difference(plan: PromotionPlan, evidence: Evidence) -> str:
    mean, low, high = _number(evidence.mean_difference), _number(evidence.low), _number(evidence.high)
    return (
        f"the mean loss difference of {mean:+.4f} nats ({100 * evidence.confidence:.4g} % interval {low:+.4f} to "
        f"{high:+.4f}; {evidence.n_pairs} paired seeds, {_sizes(evidence)})"
    )


def _sizes(evidence: Evidence) -> str:
    return f"{evidence.n_sizes} size{'' if evidence.n_sizes == 1 else 's'}"


def _corrected(plan: PromotionPlan) -> str:
    m = len(plan.shortlist)
    return f"one-sided p (Holm over {m} candidates) =" if m > 1 else "one-sided p ="


def _constant_warning(evidence: Evidence) -> str:
    if evidence.sd != 0.0:
        return ""
    return "; the difference is the same at every seed, so check that the seed reaches the run"


def _size_warning(evidence: Evidence) -> str:
    """Sizes at which the mean over sizes hides a loss: the interval lies above zero, or the last size shows no gain."""
    last = evidence.per_size[-1:]
    hidden = [one for one in evidence.per_size if one.low > 0 or (one in last and one.mean_difference >= 0)]
    if not hidden:
        return ""
    shown = " and ".join(
        f"at size {one.size} it shows no gain ({one.mean_difference:+.4f} nats, interval {one.low:+.4f} to "
        f"{one.high:+.4f})"
        for one in hidden
    )
    return f"; but {shown}, so do not take the mean for a gain at every size"


def _where(failure: RunFailure) -> str:
    reason = f" ({_clause(failure.reason)})" if failure.reason else ""
    return f"size {failure.size}, seed {failure.seed}: {failure.status}{reason}"


def _clause(reason: str) -> str:
    """The reason on one line without its full stop, so that the sentence stays one sentence."""
    return " ".join(reason.split()).rstrip(".") or "no reason given"


def _number(value: float | None) -> float:
    if value is None:
        raise ValueError("evidence without numbers reached the rule on numbers; a failed candidate has none")
    return value

"""The rule of promotion: its error rate under the null, its power, and every way not to be promoted."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from analysis.multiplicity import holm
from analysis.promotion import PromotionPlan, judge
from analysis.verdict import DECISIONS

SIZES = ("d32", "d48", "d80")
SEEDS = tuple(range(20_000, 20_006))
PARAMETERS = {"d32": 24_896, "d48": 55_776, "d80": 154_400}


def make_plan(*shortlist, **changes):
    fields = {"shortlist": shortlist, "reference": "softmax", "sizes": SIZES, "seeds": SEEDS, **changes}
    return PromotionPlan(**fields)


def rows_of(plan, effects, rng, *, sd=0.008, seed_sd=0.02, parameter_ratio=1.0):
    """Rows of a confirmation in which each candidate differs from the reference by its effect, with per-seed noise."""
    rows = []
    shared = {(size, seed): 3.6 + seed_sd * rng.standard_normal() for size in plan.sizes for seed in plan.seeds}
    for candidate in (plan.reference, *plan.shortlist):
        for seed in plan.seeds:
            noise = 0.0 if candidate == plan.reference else sd * rng.standard_normal()
            for size in plan.sizes:
                effect = 0.0 if candidate == plan.reference else effects[candidate] + noise
                ratio = 1.0 if candidate == plan.reference else parameter_ratio
                rows.append(
                    {
                        "candidate": candidate,
                        "size": size,
                        "seed": seed,
                        "status": "Completed",
                        "val_loss": shared[size, seed] + effect,
                        "n_parameters": round(PARAMETERS[size] * ratio),
                        "flops": 2.0e9 if candidate == plan.reference else 3.0e9,
                        "cpu_seconds": 10.0 if candidate == plan.reference else 12.0,
                        "peak_memory_bytes": 1_000 if candidate == plan.reference else 1_100,
                    }
                )
    return rows


def rows_with_differences(plan, candidate, differences):
    """Rows whose size-averaged differences are exactly the given ones, the same at every size."""
    rows = rows_of(plan, dict.fromkeys(plan.shortlist, 0.0), np.random.default_rng(0), sd=0.0, seed_sd=0.0)
    return [
        {**row, "val_loss": differences[plan.seeds.index(row["seed"])]} if row["candidate"] == candidate
        else {**row, "val_loss": 0.0} if row["candidate"] == plan.reference else row
        for row in rows
    ]  # fmt: skip


def broken(rows, *, candidate, status, count=1, reason=None):
    """The rows with the first `count` runs of `candidate` failed."""
    changed, left = [], count
    for row in rows:
        if row["candidate"] == candidate and left:
            left -= 1
            row = {**row, "status": status, "val_loss": None, "n_parameters": None, "reason": reason}
        changed.append(row)
    return changed


def test_a_real_effect_is_always_promoted():
    plan = make_plan("conv")
    for trial in range(60):
        (verdict,) = judge(plan, rows_of(plan, {"conv": -0.04}, np.random.default_rng(trial)))
        assert verdict.decision == "promoted", verdict.sentence


def test_a_shortlist_of_nulls_holds_the_family_wise_level():
    """150 shortlists of four nulls with no least effect: at least one promotion in at most alpha of them."""
    names = ("a", "b", "c", "d")
    plan = make_plan(*names, least_effect=0.0, alpha=0.1, sizes=("d32",))
    trials = 150
    any_promoted = sum(
        any(
            verdict.decision == "promoted"
            for verdict in judge(plan, rows_of(plan, dict.fromkeys(names, 0.0), np.random.default_rng(1_000 + trial)))
        )
        for trial in range(trials)
    )
    assert 0 < any_promoted / trials < 0.1 + 3 * math.sqrt(0.1 * 0.9 / trials)


def test_single_nulls_are_promoted_at_the_level_and_no_more():
    """alpha .25 and no least effect, so that a rule that is too strict fails here as well as one that is too lax."""
    plan = make_plan("null", least_effect=0.0, alpha=0.25, sizes=("d32",))
    trials = 400
    promoted = sum(
        judge(plan, rows_of(plan, {"null": 0.0}, np.random.default_rng(7_000 + trial)))[0].decision == "promoted"
        for trial in range(trials)
    )
    assert abs(promoted / trials - 0.25) < 3 * math.sqrt(0.25 * 0.75 / trials)


def test_an_exact_null_is_not_promoted_and_is_called_the_same_function():
    plan = make_plan("rewrite")
    (verdict,) = judge(plan, rows_of(plan, {"rewrite": 0.0}, np.random.default_rng(0), sd=0.0))
    assert verdict.decision == "not promoted"
    assert "same function" in verdict.sentence
    assert verdict.evidence.same_function
    assert (verdict.evidence.p_t, verdict.evidence.p_sign_flip, verdict.evidence.p_holm) == (1.0, 1.0, 1.0)
    assert verdict.evidence.d_z is None
    assert (verdict.evidence.low, verdict.evidence.high) == (0.0, 0.0)


def test_a_sprinter_that_is_worse_is_not_promoted_and_the_sentence_says_worse():
    plan = make_plan("linear")
    (verdict,) = judge(plan, rows_of(plan, {"linear": 0.05}, np.random.default_rng(3)))
    assert (verdict.decision, verdict.rule) == ("not promoted", "worse")
    assert "worse" in verdict.sentence


def test_a_real_gain_below_the_least_effect_is_not_promoted():
    plan = make_plan("tiny")
    (verdict,) = judge(plan, rows_of(plan, {"tiny": -0.004}, np.random.default_rng(4), sd=0.0005))
    assert (verdict.decision, verdict.rule) == ("not promoted", "too small")
    assert verdict.evidence.p_holm < plan.alpha


def test_a_tight_interval_round_zero_is_not_promoted():
    plan = make_plan("null")
    rows = rows_with_differences(plan, "null", [0.001, -0.001, 0.002, -0.002, 0.001, -0.001])
    (verdict,) = judge(plan, rows)
    assert (verdict.decision, verdict.rule, verdict.more_seeds) == ("not promoted", "no useful effect", None)


def test_noise_that_allows_nothing_and_a_useful_effect_is_undecided_and_names_the_seeds():
    plan = make_plan("noisy")
    (verdict,) = judge(plan, rows_with_differences(plan, "noisy", [-0.05, 0.03, -0.04, 0.02, -0.06, 0.01]))
    assert (verdict.decision, verdict.rule) == ("undecided", "interval")
    assert verdict.more_seeds is not None
    assert verdict.more_seeds > 0
    assert f"about {verdict.more_seeds} more seeds" in verdict.sentence


def test_the_seeds_named_by_undecided_do_decide_four_times_in_five():
    plan = make_plan("noisy")
    mean, sd = -0.03, 0.03
    pattern = np.array([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    (verdict,) = judge(plan, rows_with_differences(plan, "noisy", mean + sd * pattern / pattern.std(ddof=1)))
    assert verdict.decision == "undecided"
    seeds = tuple(range(20_000, 20_000 + 6 + verdict.more_seeds))
    longer, rng = make_plan("noisy", seeds=seeds), np.random.default_rng(11)
    decided = sum(
        judge(longer, rows_with_differences(longer, "noisy", mean + sd * rng.standard_normal(len(seeds))))[0].decision
        == "promoted"
        for _ in range(80)
    )
    assert decided / 80 == pytest.approx(0.8, abs=0.14)


def test_an_effect_exactly_at_the_least_useful_size_needs_more_seeds_than_can_be_named():
    plan = make_plan("edge")
    pattern = np.array([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    (verdict,) = judge(plan, rows_with_differences(plan, "edge", -0.00999 + 0.02 * pattern))
    assert verdict.decision == "undecided"
    assert verdict.more_seeds is None
    assert "more than 10,000 more seeds" in verdict.sentence


def test_the_correction_can_leave_a_good_candidate_undecided():
    names = tuple(f"c{i}" for i in range(12))
    plan = make_plan(*names)
    differences = np.array([-0.055, -0.012, -0.04, -0.025, -0.07, -0.02])
    alone = judge(make_plan("c0"), rows_with_differences(make_plan("c0"), "c0", differences))[0]
    crowd = judge(plan, rows_with_differences(plan, "c0", differences))[0]
    assert alone.decision == "promoted"
    assert crowd.decision == "undecided"
    assert crowd.evidence.p_holm == pytest.approx(min(1.0, 12 * crowd.evidence.p_t))


def test_holm_runs_over_the_whole_shortlist_and_failures_count_as_one():
    plan = make_plan("a", "b", "c", "d")
    rows = rows_of(plan, {"a": -0.02, "b": -0.015, "c": -0.01, "d": -0.5}, np.random.default_rng(5))
    verdicts = judge(plan, broken(rows, candidate="d", status="Crashed"))
    raw = [verdict.evidence.p_t for verdict in verdicts[:3]]
    assert [verdict.evidence.p_holm for verdict in verdicts[:3]] == pytest.approx(list(holm([*raw, 1.0])[:3]))
    assert verdicts[3].evidence.p_holm is None


@pytest.mark.parametrize("status", ["Crashed", "Diverged", "TimedOut", "OutOfMemory"])
def test_a_candidate_that_fails_any_run_is_not_promoted_with_the_reason(status):
    plan = make_plan("conv")
    rows = rows_of(plan, {"conv": -0.2}, np.random.default_rng(6))
    (verdict,) = judge(plan, broken(rows, candidate="conv", status=status, reason="loss is nan\nat layer 2."))
    assert (verdict.decision, verdict.rule) == ("not promoted", "failed run")
    assert f"seed 20000: {status} (loss is nan at layer 2)" in verdict.sentence
    assert verdict.evidence.failures[0].status == status
    assert verdict.evidence.mean_difference is None


def test_statuses_may_be_spelled_as_outcomes_are_stored():
    plan = make_plan("conv")
    rows = [{**row, "status": "completed"} for row in rows_of(plan, {"conv": -0.2}, np.random.default_rng(6))]
    assert judge(plan, rows)[0].decision == "promoted"
    (verdict,) = judge(plan, broken(rows, candidate="conv", status="out_of_memory"))
    assert verdict.evidence.failures[0].status == "OutOfMemory"


def test_a_confirmation_run_that_a_guard_stopped_is_a_rejection():
    plan = make_plan("leaky")
    rows = rows_of(plan, {"leaky": -2.0}, np.random.default_rng(6))
    (verdict,) = judge(plan, broken(rows, candidate="leaky", status="Rejected", reason="sees the future"))
    assert verdict.decision == "rejected"
    assert "sees the future" in verdict.sentence


def test_a_guard_failure_rejects_whatever_the_numbers_and_keeps_them_as_evidence():
    plan = make_plan("leaky", "conv")
    rows = rows_of(plan, {"leaky": -2.0, "conv": -0.04}, np.random.default_rng(8))
    leaky, conv = judge(plan, rows, {"leaky": "position 5 reads position 9."})
    assert (leaky.decision, leaky.sentence) == ("rejected", "Rejected: position 5 reads position 9.")
    assert leaky.evidence.mean_difference == pytest.approx(-2.0, abs=0.05)
    assert leaky.evidence.p_holm is None
    assert conv.decision == "promoted"
    assert conv.evidence.p_holm == pytest.approx(2 * conv.evidence.p_t)


def test_a_rejected_candidate_needs_no_runs():
    plan = make_plan("leaky", "conv")
    rows = rows_of(plan, {"leaky": -2.0, "conv": -0.04}, np.random.default_rng(8))
    kept = [row for row in rows if row["candidate"] != "leaky"]
    assert [verdict.decision for verdict in judge(plan, kept, {"leaky": "leaks"})] == ["rejected", "promoted"]


def test_too_many_parameters_are_not_promoted():
    plan = make_plan("wide")
    (verdict,) = judge(plan, rows_of(plan, {"wide": -0.04}, np.random.default_rng(9), parameter_ratio=1.02))
    assert (verdict.decision, verdict.rule) == ("not promoted", "parameters")
    assert verdict.evidence.parameter_ratio == pytest.approx(1.02, abs=1e-3)


def test_parameters_are_compared_at_every_size():
    plan = make_plan("wide")
    rows = rows_of(plan, {"wide": -0.04}, np.random.default_rng(9))
    rows = [
        {**row, "n_parameters": int(1.05 * PARAMETERS["d80"])}
        if (row["candidate"], row["size"]) == ("wide", "d80")
        else row
        for row in rows
    ]
    assert judge(plan, rows)[0].rule == "parameters"


def test_a_sign_flip_test_that_contradicts_the_t_test_stops_a_promotion():
    """Eight pairs can attain 1/256, so the sign flips must reach alpha; here they stop at 4/256 while t is below."""
    plan = make_plan("odd", seeds=tuple(range(20_000, 20_008)), least_effect=0.0)
    differences = [0.002, -0.047, -0.08, -0.064, 0.001, -0.04, -0.074, -0.037]
    (verdict,) = judge(plan, rows_with_differences(plan, "odd", differences))
    assert verdict.evidence.p_holm < plan.alpha < verdict.evidence.p_sign_flip
    assert (verdict.decision, verdict.rule) == ("undecided", "sign flip")


def test_the_same_difference_at_every_seed_is_promoted_with_a_warning():
    plan = make_plan("odd")
    (verdict,) = judge(plan, rows_with_differences(plan, "odd", [-0.25] * 6))
    assert verdict.decision == "promoted"
    assert (verdict.evidence.p_t, verdict.evidence.p_sign_flip, verdict.evidence.d_z) == (0.0, 1 / 64, None)
    assert "same at every seed" in verdict.sentence


def test_costs_are_ratios_and_missing_ones_stay_missing():
    plan = make_plan("conv")
    rows = rows_of(plan, {"conv": -0.04}, np.random.default_rng(1))
    evidence = judge(plan, rows)[0].evidence
    assert (evidence.flops_ratio, evidence.cpu_seconds_ratio, evidence.peak_memory_ratio) == pytest.approx(
        (1.5, 1.2, 1.1)
    )
    rows[-1] = {**rows[-1], "flops": None}
    assert judge(plan, rows)[0].evidence.flops_ratio is None


def test_evidence_is_what_the_rows_say():
    from scipy import stats

    plan = make_plan("conv", alpha=0.05)
    rows = rows_of(plan, {"conv": -0.04}, np.random.default_rng(2))
    evidence = judge(plan, rows)[0].evidence
    loss = {(row["candidate"], row["size"], row["seed"]): row["val_loss"] for row in rows}
    ours = [np.mean([loss["conv", size, seed] for size in SIZES]) for seed in SEEDS]
    theirs = [np.mean([loss["softmax", size, seed] for size in SIZES]) for seed in SEEDS]
    peer = stats.ttest_rel(ours, theirs, alternative="less")
    assert evidence.p_t == pytest.approx(peer.pvalue)
    assert evidence.upper_bound == pytest.approx(peer.confidence_interval(0.95).high)
    two_sided = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (evidence.low, evidence.high) == pytest.approx((two_sided.low, two_sided.high))
    assert evidence.probability_better == 1.0
    assert evidence.d_z_low < evidence.d_z < evidence.d_z_high
    assert [effect.size for effect in evidence.per_size] == list(SIZES)
    for effect in evidence.per_size:
        pairs = [loss["conv", effect.size, seed] - loss["softmax", effect.size, seed] for seed in SEEDS]
        assert effect.mean_difference == pytest.approx(np.mean(pairs))
        assert effect.p_t == pytest.approx(stats.ttest_1samp(pairs, 0, alternative="less").pvalue)


def test_every_verdict_is_one_finite_json_sentence():
    plan = make_plan("same", "good", "bad", "noisy", "leaky")
    effects = {"same": 0.0, "good": -0.04, "bad": 0.05, "noisy": -0.01, "leaky": -1.0}
    rows = rows_of(plan, effects, np.random.default_rng(12))
    zero = {(row["size"], row["seed"]): row["val_loss"] for row in rows if row["candidate"] == "softmax"}
    rows = [{**row, "val_loss": zero[row["size"], row["seed"]]} if row["candidate"] == "same" else row for row in rows]
    verdicts = judge(plan, rows, {"leaky": "reads the future"})
    assert [verdict.candidate for verdict in verdicts] == list(plan.shortlist)
    for verdict in verdicts:
        json.dumps(verdict.to_json(), allow_nan=False)
        assert verdict.decision in DECISIONS
        assert verdict.plan_hash == plan.hash
        assert verdict.sentence.endswith(".")
        assert ". " not in verdict.sentence
        assert verdict.sentence.lower().startswith(verdict.decision)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rows: rows[:-1], r"1 planned run\(s\) are missing, first the run of 'conv' at size 'd80', seed 20005"),
        (lambda rows: [*rows, rows[0]], "given twice"),
        (lambda rows: [{**rows[0], "seed": 7}, *rows[1:]], "seed 7, which is not in the plan"),
        (
            lambda rows: [{**rows[0], "size": "d38"}, *rows[1:]],
            "did you mean 'd80'|did you mean 'd32'|did you mean 'd48'",
        ),
        (lambda rows: [{**rows[0], "candidate": "x"}, *rows[1:]], "candidate 'x', which is not in the plan"),
        (lambda rows: [{**rows[0], "status": "Done"}, *rows[1:]], "status 'Done'; allowed: Completed"),
        (lambda rows: [{**rows[0], "val_loss": float("nan")}, *rows[1:]], "val_loss nan"),
        (lambda rows: [{**rows[0], "val_loss": None}, *rows[1:]], "val_loss None"),
        (lambda rows: [{**rows[0], "status": "Crashed"}, *rows[1:]], "a failure is never a number"),
        (lambda rows: [{**rows[0], "status": "Crashed", "val_loss": None}, *rows[1:]], "the reference 'softmax' must"),
        (lambda rows: [{**rows[0], "n_parameters": 5}, *rows[1:]], "depending on the seed"),
        (lambda rows: [{**rows[0], "n_parameters": 0}, *rows[1:]], "n_parameters 0"),
        (lambda rows: [{**rows[0], "flops": -1.0}, *rows[1:]], "flops -1.0"),
        (lambda rows: [{**rows[0], "split": "search_validation"}, *rows[1:]], "measured on split 'search_validation'"),
        (
            lambda rows: [{**row, "corpus_hash": "ab" if i else "cd"} for i, row in enumerate(rows)],
            "different corpora cannot be compared; corpus hashes seen: ab, cd",
        ),
        (lambda rows: [{"size": "d32"}, *rows[1:]], "lacks 'candidate'"),
    ],
)
def test_damaged_rows_are_errors_that_name_the_run(damage, message):
    plan = make_plan("conv")
    rows = rows_of(plan, {"conv": -0.04}, np.random.default_rng(1))
    with pytest.raises(ValueError, match=message):
        judge(plan, damage(rows))


def test_guard_failures_must_name_a_shortlisted_candidate():
    plan = make_plan("conv")
    rows = rows_of(plan, {"conv": -0.04}, np.random.default_rng(1))
    with pytest.raises(ValueError, match="is not on the shortlist"):
        judge(plan, rows, {"cnov": "x"})
    with pytest.raises(ValueError, match="is the reference"):
        judge(plan, rows, {"softmax": "x"})


def test_judging_does_not_depend_on_the_order_of_rows():
    plan = make_plan("conv", "null")
    rows = rows_of(plan, {"conv": -0.04, "null": 0.0}, np.random.default_rng(1))
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    assert judge(plan, shuffled) == judge(plan, rows)

"""The predeclared confirmation: plan, seal, paired fresh runs, verdicts.

The plan (shortlist, seeds, sizes, level, least effect) is written to the ledger before
the seal on the test split is opened, and the ledger opens it once. After a kill the
missing runs are measured under the same opening. The trained weights of every candidate
are checked for leaks again; one that fails is rejected whatever its loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evolution.config import ConfirmationSection
from evolution.measurement import Measurement
from evolution.stages import RunFactory
from frameworks.program import Program

if TYPE_CHECKING:
    from analysis.promotion import PromotionPlan, Verdict
    from evolution.ledger import Ledger
    from training.run_spec import RunSpec


def make_plan(
    section: ConfirmationSection, reference: str, shortlist: Sequence[str], sizes: Sequence[str], seeds: Sequence[int]
) -> PromotionPlan:
    """The plan of a confirmation."""
    from analysis.promotion import PromotionPlan

    return PromotionPlan(
        shortlist=tuple(shortlist),
        reference=reference,
        sizes=tuple(sizes),
        seeds=tuple(seeds),
        alpha=section.alpha,
        least_effect=section.least_effect,
        max_parameter_ratio=section.max_parameter_ratio,
    )


def confirm(
    plan: PromotionPlan,
    programs: dict[str, Program],
    *,
    ledger: Ledger,
    measurement: Measurement,
    factory: RunFactory,
) -> list[Verdict]:
    """Declare the plan, open the seal, measure what is missing, judge, and record the verdicts.

    Args:
        plan: what is compared.
        programs: by identity, the reference and the whole shortlist.
        ledger: where plan, opening, runs and verdicts are committed.
        measurement: runs the specs.
        factory: makes them.
    """
    from analysis.promotion import judge

    specs = confirmation_specs(plan, factory)
    declared = ledger.declare_plan(plan.to_json())
    if not ledger.seal_is_open(declared):
        ledger.open_seal(declared)
    outcomes = measurement.gather((spec, programs[spec.candidate].source) for spec in specs)
    rows = [confirmation_row(spec, outcomes[spec.key].model_dump(mode="json")) for spec in specs]
    verdicts = judge(plan, rows, guard_failures=_leaks_after_training(rows))
    for verdict in verdicts:
        ledger.record_once(
            "verdict",
            {**verdict.to_json(), "plan": declared, "reference": plan.reference},
            key=f"{declared}:{verdict.candidate}",
        )
    return verdicts


def confirmation_specs(plan: PromotionPlan, factory: RunFactory) -> list[RunSpec]:
    """All runs of a plan: every arm at every size with every seed."""
    return [
        factory.confirmation(candidate, size, seed)
        for size in plan.sizes
        for seed in plan.seeds
        for candidate in (plan.reference, *plan.shortlist)
    ]


def confirmation_row(spec: RunSpec, outcome: dict[str, Any]) -> dict[str, Any]:
    """One row for `analysis.promotion.judge`; what was not measured is None."""
    return {
        "candidate": spec.candidate,
        "size": spec.size,
        "seed": spec.seed,
        "split": spec.eval_split,
        "corpus_hash": spec.corpus_hash,
        "status": outcome["status"],
        "reason": outcome.get("reason") or outcome.get("error") or "",
        **{
            name: outcome.get(name)
            for name in ("val_loss", "n_parameters", "flops", "cpu_seconds", "seconds", "peak_memory_bytes", "tokens")
        },
    }


def _leaks_after_training(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Candidates whose trained weights failed a guard, with the reason."""
    return {
        row["candidate"]: row["reason"] or "a guard rejected its trained weights"
        for row in rows
        if row["status"] == "rejected"
    }

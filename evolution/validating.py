"""Validate a finished evolution: both arms at their tuned settings, fresh seeds, every size and a larger unseen one.

It is a confirmation like the evolution's own, in the same ledger, under a plan and an opening of its own: the plan
and the settings are on record before the seal on its seeds is opened, a killed validation measures what is missing,
and a second one on the same seeds is refused by the ledger. Every checkpoint and curve stays below `validation/`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolution.confirmation import confirm, confirmation_row, confirmation_specs, make_plan
from evolution.engine import Listener
from evolution.finished_run import FinishedRun, recorded_settings
from evolution.manifest import write_json
from evolution.session import LEDGER_NAME, open_bench
from training.validate_best import ValidationSeeds, run_folder, validation_sizes

if TYPE_CHECKING:
    from evolution.ledger import Ledger
    from training.tuned_settings import TunedSettings

FOLDER = "validation"
SUMMARY = "validation.json"


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What a validation came to.

    Attributes:
        verdict: `analysis.promotion.Verdict` as JSON.
        rows: one a run: arm, size, seed, loss, parameters, FLOPs, tokens, seconds, peak memory.
        settings: tuned settings by arm; empty where the arms ran at the ladder's own.
        directory: where checkpoints, curves and the summary are.
        report: the page that shows it.
    """

    verdict: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any]
    directory: Path
    report: Path


def validate(run: FinishedRun, seeds: ValidationSeeds, listener: Listener) -> Validation:
    """Run the validation to its verdict, or go on with one that was interrupted.

    Args:
        run: what was evolved, see `evolution.finished_run`.
        seeds: the fresh seeds.
        listener: called with (event, payload) as things happen.

    Raises:
        ConfigError: the corpus changed since.
        SealError: a LedgerError; these seeds were used for another confirmation of an arm.
    """
    from evolution.ledger import Ledger
    from evolution.projection import validation_report

    corpus = run.corpus(listener)
    ladder = run.request.ladder.with_unseen()
    request = dataclasses.replace(run.request, ladder=ladder)
    plan = make_plan(
        request.config.confirmation,
        run.reference.identity,
        [run.candidate.identity],
        validation_sizes(ladder),
        seeds.seeds(),
    )
    directory = run.directory / FOLDER
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger.open(run.directory / LEDGER_NAME))
        declared = ledger.declare_plan(plan.to_json())  # refuses used seeds before anything starts
        settings = _declared_settings(ledger, run, declared)
        bench = stack.enter_context(
            open_bench(request, run.directory, ledger, corpus, listener, keep=lambda spec: run_folder(directory, spec))
        )
        factory = bench.factory.with_settings(settings)
        listener("confirmation", {"plan": plan.to_json(), "tuned": bool(settings)})
        verdicts = confirm(
            plan,
            {arm.identity: arm for arm in run.arms},
            ledger=ledger,
            measurement=bench.measurement,
            factory=factory,
        )
        rows = [
            confirmation_row(spec, ledger.outcome(spec.key) or {"status": "missing"})
            for spec in confirmation_specs(plan, factory)
        ]
        directory.mkdir(parents=True, exist_ok=True)
        report = validation_report(
            ledger, run.directory, declared, ladder.model_dump(mode="json"), directory / "report.html"
        )
    result = Validation(
        verdict=verdicts[0].to_json(),
        rows=tuple(rows),
        settings={identity: value.model_dump(mode="json") for identity, value in settings.items()},
        directory=directory,
        report=report,
    )
    write_json(
        directory / SUMMARY,
        {"plan": plan.to_json(), "verdict": result.verdict, "settings": result.settings, "runs": list(result.rows)},
    )
    return result


def _declared_settings(ledger: Ledger, run: FinishedRun, plan: str) -> dict[str, TunedSettings]:
    """The settings of the plan of this hash: those recorded at its first start, else the tuned ones, recorded now."""
    from training.tuned_settings import TunedSettings

    tuned = recorded_settings(ledger, run)
    ledger.record_once(
        "decision",
        {
            "what": "validation",
            "reason": "both arms at their tuned settings" if tuned else "both arms at the ladder's settings, untuned",
            "settings": {identity: settings.model_dump(mode="json") for identity, settings in tuned.items()},
        },
        key=f"validation:{plan}",
    )
    event = ledger.event("decision", f"validation:{plan}")
    recorded = {} if event is None else event.payload["settings"]
    return {identity: TunedSettings.model_validate(settings) for identity, settings in recorded.items()}

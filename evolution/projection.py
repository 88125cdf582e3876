"""From a ledger to a report: everything the page shows is read from the events.

Terminal, report and any other view are projections of the same log, so they cannot
disagree. What was not measured stays None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolution.calibration_record import controls_beside, misranked_of, withheld_sentence, withheld_verdict
from frameworks.program import block_diff

if TYPE_CHECKING:
    from analysis.report_data import ReportData
    from evolution.ledger import Event, Ledger, RunRecord

Row = dict[str, Any]


def stored_verdicts(ledger: Ledger) -> tuple[Mapping[str, Any], ...]:
    """The verdicts on record, in the order they were reached."""
    return tuple(event.payload for event in ledger.events("verdict"))


def verdicts_to_show(ledger: Ledger, directory: Path) -> tuple[Mapping[str, Any], ...]:
    """The verdicts on record, withheld where the newest calibration of the set-up misranked a control."""
    started = ledger.events("run_started", limit=1)
    misranked = misranked_of(controls_beside(directory, started[0].payload)) if started else []
    if not misranked:
        return stored_verdicts(ledger)
    return tuple(withheld_verdict(verdict, withheld_sentence(misranked)) for verdict in stored_verdicts(ledger))


def report_of_run(ledger: Ledger, directory: Path) -> Path:
    """Write `directory`/report.html from the ledger and return its path."""
    from analysis.report import write_report

    started = ledger.events("run_started", limit=1)
    controls = controls_beside(directory, started[0].payload) if started else []
    return write_report(report_data(ledger, directory.name, controls), directory / "report.html")


def validation_report(ledger: Ledger, directory: Path, plan_key: str, ladder: Mapping[str, Any], path: Path) -> Path:
    """Write the report of a validation: the run's search, and the confirmation under the plan of this key.

    Args:
        ledger: the run's.
        directory: the run's folder.
        plan_key: hash of the validation's plan.
        ladder: the ladder with its unseen size, as JSON.
        path: where the page goes.
    """
    from analysis.report import write_report

    started = ledger.events("run_started", limit=1)
    controls = controls_beside(directory, started[0].payload) if started else []
    data = report_data(ledger, f"{directory.name}, validated", controls, plan_key=plan_key, ladder=ladder)
    return write_report(data, path)


def report_data(
    ledger: Ledger,
    name: str,
    controls: Sequence[Row] = (),
    *,
    plan_key: str | None = None,
    ladder: Mapping[str, Any] | None = None,
) -> ReportData:
    """The rows of a run's report; a misranked control among `controls` withholds its verdicts.

    Args:
        ledger: the run's.
        name: of the run.
        controls: how known controls ended, from calibrations beside the run.
        plan_key: the confirmation that is shown; None takes the run's own, which is the first.
        ladder: in place of the recorded one, where the confirmation had a size more.

    Raises:
        ValueError: the ledger holds no run.
    """
    from analysis.report_data import ReportData

    started = ledger.events("run_started")
    if not started:
        raise ValueError(f"the ledger of run '{name}' holds no started run; nothing can be reported")
    from analysis.arm_gains import arm_rows, guidance_sentence
    from analysis.proposal_rates import guidance_rows, proposer_rows
    from evolution import proposer_rows as rows

    manifest = started[0].payload if ladder is None else {**started[0].payload, "ladder": ladder}
    shown = next((event for event in ledger.events("plan") if plan_key in (None, event.key)), None)
    plan = None if shown is None else shown.payload
    everything = ledger.comparable_runs()
    extra = rows.control_candidates(ledger)
    runs = [run for run in everything if _belongs(run, plan) and run.spec["candidate"] not in extra]
    proposals = rows.proposal_rows(ledger)
    llms = rows.llm_names(manifest)
    withheld = guidance_rows([row for row in proposals if row["proposer"] in llms])
    arms = arm_rows(rows.fresh_gains(ledger))
    candidates = {str(event.key): event.payload for event in ledger.candidates()}
    reference = str(manifest["reference"])
    verdicts = tuple(verdict for verdict in stored_verdicts(ledger) if shown is None or verdict["plan"] == shown.key)
    seal = None if shown is None else ledger.event("seal_opened", str(shown.key))
    misranked = misranked_of(controls)
    if misranked:
        verdicts = tuple(withheld_verdict(verdict, withheld_sentence(misranked)) for verdict in verdicts)
    fitness = _fitness(ledger)
    winner = _winner(verdicts, plan, fitness, reference)
    block = candidates[winner]["block"] if winner in candidates else None
    return ReportData(
        title=f"Evolving {manifest['config']['framework'].replace('_', ' ')}",
        name=name,
        framework=str(manifest["config"]["framework"]),
        reference=reference,
        command=manifest.get("command"),
        proposer=str(manifest["proposer"]),
        uses_llm=_uses_llm(manifest),
        created=datetime.fromtimestamp(started[0].time, UTC).isoformat(timespec="seconds"),
        state=_state(ledger),
        manifest=manifest,
        cost=_cost(ledger, everything),
        sizes=_sizes(manifest, runs, reference),
        verdicts=verdicts,
        plan=plan,
        seal_opened=datetime.fromtimestamp(seal.time, UTC).isoformat(timespec="seconds") if seal else None,
        curves=[row for run in runs for row in _curve(run)],
        confirmation=[_run_row(run) for run in runs if run.spec["purpose"] == "confirmation"],
        search=[_run_row(run) for run in runs if run.spec["purpose"] == "search"],
        scaling=_scaling(runs, [reference, *([winner] if winner else [])]),
        lineage=[_node(event, fitness) for event in ledger.candidates() if event.key not in extra],
        proposers=proposer_rows(proposals),
        guidance=withheld if any(row["withheld"] for row in proposals) else (),
        arms=arms,
        arms_sentence=guidance_sentence(arms, manifest["config"]["confirmation"]["least_effect"]) if arms else None,
        ended_by=rows.ended_by(ledger),
        winner=winner,
        winner_block=block,
        winner_diff=block_diff(candidates[reference]["block"], block, "reference", winner[:12])
        if winner and block is not None
        else None,
        rejected=_rejected(ledger),
        noise_floor=_noise_floor(runs, reference),
        controls=controls,
        notes=_notes(manifest, None if shown is None else ledger.event("decision", f"validation:{shown.key}")),
    )


def _belongs(run: RunRecord, plan: Mapping[str, Any] | None) -> bool:
    """Search runs, and the confirmation runs of the plan; tuning trials ran at settings of their own."""
    if run.spec["purpose"] != "confirmation":
        return bool(run.spec["purpose"] == "search")
    return plan is not None and run.spec["seed"] in plan["seeds"]


def _uses_llm(manifest: Mapping[str, Any]) -> bool:
    config = manifest["config"]
    return any(section["kind"] != "catalogue" for section in config.get("proposers") or [config["proposer"]])


def _state(ledger: Ledger) -> str:
    if ledger.event("run_finished", "end") is not None:
        return "finished"
    last = ledger.events("interrupted")
    starts = ledger.events("run_started")
    return "interrupted" if last and last[-1].seq > starts[-1].seq else "running"


def _fitness(ledger: Ledger) -> dict[str, Row]:
    """The latest fitness event of each candidate."""
    return {str(event.payload["candidate"]): event.payload for event in ledger.events("fitness")}


def _winner(
    verdicts: tuple[Mapping[str, Any], ...], plan: Mapping[str, Any] | None, fitness: Mapping[str, Row], reference: str
) -> str | None:
    """The promoted candidate with the largest confirmed gain, else the first of the shortlist, else the fittest."""
    promoted = [v for v in verdicts if v["decision"] == "promoted"]
    if promoted:
        return str(min(promoted, key=lambda v: float(v["evidence"]["mean_difference"]))["candidate"])
    if plan is not None:
        return str(plan["shortlist"][0])
    rated = [
        (float(row["paired_gain"]), candidate)
        for candidate, row in fitness.items()
        if candidate != reference and row.get("paired_gain") is not None
    ]
    return max(rated)[1] if rated else None


def _run_row(run: RunRecord) -> Row:
    outcome = run.outcome
    return {
        "candidate": run.spec["candidate"],
        "size": run.spec["size"],
        "seed": run.spec["seed"],
        "status": outcome["status"],
        "reason": outcome.get("reason") or outcome.get("error"),
        **{
            field: outcome.get(field)
            for field in ("val_loss", "n_parameters", "flops", "cpu_seconds", "seconds", "peak_memory_bytes")
        },
    }


def _curve(run: RunRecord) -> list[Row]:
    return [
        {
            "candidate": run.spec["candidate"],
            "size": run.spec["size"],
            "seed": run.spec["seed"],
            "purpose": run.spec["purpose"],
            "step": step,
            "train_loss": train_loss,
            "val_loss": val_loss,
        }
        for step, train_loss, val_loss in run.outcome.get("curve") or ()
    ]


def _cost(ledger: Ledger, runs: list[RunRecord]) -> list[Row]:
    proposals = [event.payload for event in ledger.proposals()]
    rows: list[Row] = [
        {"what": "proposals asked for", "value": len(proposals), "unit": ""},
        {"what": "runs measured", "value": len(runs), "unit": ""},
    ]
    for what, field in (("prompt tokens", "prompt_tokens"), ("reply tokens", "completion_tokens")):
        reported = [p[field] for p in proposals if p.get(field) is not None]
        missing = len(proposals) - len(reported)
        rows.append(
            {
                "what": what,
                "value": sum(reported) if reported else None,
                "unit": "tokens",
                "note": f"{missing} calls reported none" if missing and reported else "",
            }
        )
    for what, field, unit in (
        ("training tokens", "tokens", "tokens"),
        ("training FLOPs", "flops", "FLOPs"),
        ("CPU time of the runs", "cpu_seconds", "s"),
    ):
        values = [run.outcome[field] for run in runs if run.outcome.get(field) is not None]
        rows.append({"what": what, "value": sum(values) if values else None, "unit": unit})
    return rows


def _sizes(manifest: Mapping[str, Any], runs: list[RunRecord], reference: str) -> list[Row]:
    counts = {
        run.spec["size"]: run.outcome["n_parameters"]
        for run in runs
        if run.spec["candidate"] == reference and run.outcome.get("n_parameters") is not None
    }
    ladder = manifest["ladder"]
    sizes = [*ladder["sizes"], *([ladder["unseen"]] if ladder.get("unseen") else [])]
    fields = ("name", "d_model", "n_layers", "n_heads", "steps", "learning_rate", "batch_size", "seq_len")
    return [{field: size[field] for field in fields} | {"n_parameters": counts.get(size["name"])} for size in sizes]


def _scaling(runs: list[RunRecord], arms: list[str]) -> list[Row]:
    """Loss against parameters over the confirmed sizes, mean over seeds, one fit an arm."""
    from analysis.power_law import fit_log_linear, fit_power_law

    rows = []
    for arm in arms:
        by_size: dict[str, list[tuple[int, float]]] = {}
        for run in runs:
            if run.spec["candidate"] == arm and run.spec["purpose"] == "confirmation" and "val_loss" in run.outcome:
                point = (run.outcome["n_parameters"], run.outcome["val_loss"])
                by_size.setdefault(run.spec["size"], []).append(point)
        points = sorted((cells[0][0], sum(loss for _, loss in cells) / len(cells)) for cells in by_size.values())
        row: Row = {"arm": arm, "points": points, "E": None, "A": None, "alpha": None, "slope": None, "exact": None}
        if len({n for n, _ in points}) >= 2:
            sizes, losses = [n for n, _ in points], [loss for _, loss in points]
            row["slope"] = fit_log_linear(sizes, losses).slope
            if len(points) >= 3:
                fit = fit_power_law(sizes, losses)
                row |= {"E": fit.offset, "A": fit.amplitude, "alpha": fit.alpha, "exact": fit.exact}
        if points:
            rows.append(row)
    return rows


def _node(event: Event, fitness: Mapping[str, Row]) -> Row:
    payload = event.payload
    measured = fitness.get(str(event.key))
    status = "not measured" if measured is None else "failed" if measured.get("failure") else "measured"
    return {
        "id": event.key,
        "parent": payload.get("parent"),
        "iteration": payload.get("iteration"),
        "fitness": measured.get("paired_gain") if measured else None,
        "status": status,
        "changes": payload.get("changes"),
    }


def _rejected(ledger: Ledger) -> list[Row]:
    rows = []
    for event in ledger.proposals():
        payload = event.payload
        if payload["status"] != "accepted" and not payload.get("arm"):
            rows.append(
                {
                    "iteration": payload.get("iteration"),
                    "candidate": payload.get("candidate"),
                    "stage": payload["status"],
                    "reason": payload.get("reason"),
                }
            )
    for event in ledger.events("decision"):
        if event.payload["what"] == "start_program":
            rows.append(
                {
                    "iteration": 0,
                    "candidate": event.payload.get("candidate"),
                    "stage": "guard",
                    "reason": event.payload["reason"],
                }
            )
    for event in ledger.events("fitness"):
        if event.payload.get("failure"):
            rows.append(
                {
                    "iteration": event.payload.get("iteration"),
                    "candidate": event.payload["candidate"],
                    "stage": "measured",
                    "reason": event.payload["failure"],
                }
            )
    return rows


def _noise_floor(runs: list[RunRecord], reference: str) -> list[Row]:
    """SD over seeds of the reference's loss at each size."""
    import statistics

    rows = []
    losses: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        if run.spec["candidate"] == reference and run.outcome.get("val_loss") is not None:
            losses.setdefault((run.spec["size"], run.spec["purpose"]), []).append(run.outcome["val_loss"])
    for (size, purpose), values in losses.items():
        if len(values) > 1:
            rows.append(
                {
                    "size": size,
                    "value": statistics.stdev(values),
                    "note": f"SD of the reference over {len(values)} {purpose} seeds; pairs of arms differ by less",
                }
            )
    return rows


def _notes(manifest: Mapping[str, Any], validation: Event | None) -> list[str]:
    tuned = validation is not None and validation.payload["settings"]
    notes = [
        "In the confirmation both arms ran at their own tuned settings (the same space and number of trials); in the "
        "search both ran at the ladder's."
        if tuned
        else "Both arms ran at the ladder's learning rates; neither was tuned further.",
        "Losses are nats a token on this corpus at these sizes and horizons; nothing is claimed beyond them.",
    ]
    if not _uses_llm(manifest):
        notes.insert(
            0,
            "The proposer was evoscale's catalogue of code operators from the literature and their recombination. "
            "It is no LLM.",
        )
    return notes

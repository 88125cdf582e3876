"""What a report is made of: plain rows, gathered from the ledger by the caller.

A row is a mapping; a field that is None or absent was not measured and is shown as such, never
as zero. Every text may come from a stranger and is escaped by the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]

STATES = ("finished", "interrupted", "running")


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """All a report shows. Only `title`, `name`, `framework` and `reference` are needed.

    Attributes:
        title: heading of the page.
        name: the run's name.
        framework: what was evolved.
        reference: identity of the reference candidate.
        command: the command line that made the run; None when unknown.
        proposer: who proposed, in words.
        uses_llm: False makes the page say plainly that no language model took part; None leaves it open.
        created: when the run started, ISO 8601.
        state: "finished", "interrupted" or "running".
        manifest: versions, hashes, configuration, hardware.
        cost: rows `what`, `value` (None = not reported), `unit`, `note`.
        sizes: rows `name` and what describes the size (`d_model`, `n_layers`, `n_parameters`, `steps` ...).
        verdicts: `Verdict.to_json()` of each shortlisted candidate (`candidate`, `decision`, `sentence`, `evidence`).
        plan: the predeclared plan as JSON; None when nothing was to be confirmed.
        seal_opened: when the sealed split was opened, ISO 8601; None when it was not.
        curves: rows `candidate`, `size`, `seed`, `step`, `train_loss`, `val_loss` and, where known, `purpose`.
        confirmation: rows `candidate`, `size`, `seed`, `status`, `val_loss`, `n_parameters`, `flops`, `cpu_seconds`,
            `seconds`, `peak_memory_bytes`, `reason`.
        search: the same for the runs of the search.
        scaling: rows `arm` (candidate), `E`, `A`, `alpha` (loss = E + A (N / n_unit) ** -alpha; None = no fit),
            `n_unit` (parameters, default 1), `slope` (of loss on log N), `points` (pairs parameters, loss), `exact`.
        lineage: rows `id`, `parent`, `iteration`, `fitness`, `status`, `changes`.
        winner: the candidate to show in detail; None takes the first promoted, shortlisted or fittest one.
        winner_block: its block as text.
        winner_diff: unified diff from the reference's block to it.
        rejected: rows `iteration`, `candidate`, `stage`, `reason` of what was never measured.
        noise_floor: rows `size`, `value` (nats), `note`: what two arms without any difference differ by.
        controls: rows `name`, `expected`, `found`, `holds`.
        proposers: rows of `analysis.proposal_rates.proposer_rows`.
        guidance: rows of `analysis.proposal_rates.guidance_rows`; empty when nothing was withheld.
        arms: rows of `analysis.arm_gains.arm_rows`; empty without control arms.
        arms_sentence: in words, whether guidance helped.
        ended_by: the budget that ended the search; None when none did.
        notes: anything a reader must know, one paragraph each.
    """

    title: str
    name: str
    framework: str
    reference: str
    command: str | None = None
    proposer: str = "not recorded"
    uses_llm: bool | None = None
    created: str | None = None
    state: str = "finished"
    manifest: Row = field(default_factory=dict)
    cost: Sequence[Row] = ()
    sizes: Sequence[Row] = ()
    verdicts: Sequence[Row] = ()
    plan: Row | None = None
    seal_opened: str | None = None
    curves: Sequence[Row] = ()
    confirmation: Sequence[Row] = ()
    search: Sequence[Row] = ()
    scaling: Sequence[Row] = ()
    lineage: Sequence[Row] = ()
    winner: str | None = None
    winner_block: str | None = None
    winner_diff: str | None = None
    rejected: Sequence[Row] = ()
    noise_floor: Sequence[Row] = ()
    controls: Sequence[Row] = ()
    proposers: Sequence[Row] = ()
    guidance: Sequence[Row] = ()
    arms: Sequence[Row] = ()
    arms_sentence: str | None = None
    ended_by: str | None = None
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"state {self.state!r} is not one of {', '.join(STATES)}")

    @property
    def shortlist(self) -> list[str]:
        """Candidates with a verdict, in order; without any verdict those of the plan."""
        judged = [str(row["candidate"]) for row in self.verdicts]
        planned = (self.plan or {}).get("shortlist") or ()
        return judged or [str(candidate) for candidate in planned]

    @property
    def promoted(self) -> list[str]:
        """Candidates whose verdict is "promoted"."""
        return [str(row["candidate"]) for row in self.verdicts if row.get("decision") == "promoted"]

    @property
    def focus(self) -> str | None:
        """The candidate shown in detail beside the reference; None when there is none."""
        for found in (self.winner, *self.promoted, *self.shortlist):
            if found is not None:
                return found
        rated = [row for row in self.lineage if row.get("fitness") is not None and row.get("id") != self.reference]
        return str(max(rated, key=lambda row: float(row["fitness"]))["id"]) if rated else None

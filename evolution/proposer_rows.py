"""What the ledger says of proposers, withheld guidance and control arms, as plain rows for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evolution.ledger import Ledger

Row = dict[str, Any]


def proposal_rows(ledger: Ledger) -> list[Row]:
    """Every proposal of the search with the gain of its candidate; control arms are not in it."""
    gains = {
        str(event.payload["candidate"]): event.payload.get("paired_gain")
        for event in ledger.events("fitness")
        if event.payload.get("stage") == "in_loop"
    }
    rows = []
    for event in ledger.proposals():
        payload = event.payload
        if payload.get("arm"):
            continue
        accepted = payload["status"] == "accepted"
        rows.append(
            {
                **{name: payload.get(name) for name in ("status", "prompt_tokens", "completion_tokens", "seconds")},
                "proposer": payload.get("proposer", "not recorded"),
                "dollars": payload.get("dollars"),
                "withheld": payload.get("withheld"),
                "gain": gains.get(str(payload.get("candidate"))) if accepted else None,
            }
        )
    return rows


def llm_names(manifest: dict[str, Any]) -> set[str]:
    """Names of the proposers that are language models."""
    return {str(row["name"]) for row in manifest.get("proposers") or () if row.get("uses_llm")}


def control_candidates(ledger: Ledger) -> set[str]:
    """Candidates that only a control arm proposed."""
    return {str(event.key) for event in ledger.candidates() if event.payload.get("arm")}


def fresh_gains(ledger: Ledger) -> dict[str, list[float | None]]:
    """Arm -> gains on fresh seeds; empty without control arms."""
    event = ledger.event("note", "arm_gains")
    return {} if event is None else dict(event.payload["gains"])


def ended_by(ledger: Ledger) -> str | None:
    """The sentence of the budget that ended the search; None where none did."""
    event = ledger.event("decision", "budget")
    return None if event is None else str(event.payload["reason"])

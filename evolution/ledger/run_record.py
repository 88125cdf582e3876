"""A recorded run, and the rule that runs on different corpora are never compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from evolution.ledger.errors import CorpusMismatchError


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run as recorded.

    Attributes:
        seq: number of its event.
        time: seconds since 1970 when it was recorded.
        key: `RunSpec.key`.
        spec: the spec as JSON.
        outcome: the outcome as JSON; `outcome["status"]` is its tag.
        cost_source: where the cost in the outcome comes from (`measured`, ...); None = not recorded.
    """

    seq: int
    time: float
    key: str
    spec: dict[str, Any]
    outcome: dict[str, Any]
    cost_source: str | None

    @property
    def val_loss(self) -> float | None:
        """Final validation loss in nats a token; None unless the run completed."""
        return self.outcome.get("val_loss") if self.outcome.get("status") == "completed" else None


def require_one_corpus(records: Iterable[RunRecord]) -> str | None:
    """The corpus hash all `records` share; None when there are none.

    Raises:
        CorpusMismatchError: they ran on more than one corpus (or tokenizer).
    """
    seen: dict[tuple[Any, Any], RunRecord] = {}
    for record in records:
        seen.setdefault((record.spec.get("corpus_hash"), record.spec.get("tokenizer_hash")), record)
    if len(seen) > 1:
        listed = "; ".join(
            f"corpus {str(corpus)[:12]}, tokenizer {str(tokenizer)[:12]} (run {record.key[:12]})"
            for (corpus, tokenizer), record in seen.items()
        )
        raise CorpusMismatchError(
            f"runs on {len(seen)} corpora are never compared: {listed}; ask for one with corpus_hash=..."
        )
    return next(iter(seen))[0] if seen else None

"""The append-only record of everything that was proposed, guarded, measured and judged."""

from evolution.ledger.errors import (
    CorpusMismatchError,
    DuplicateEventError,
    DuplicateRunError,
    LedgerError,
    PayloadError,
    SealError,
)
from evolution.ledger.ledger import Event, Ledger
from evolution.ledger.plan import plan_hash
from evolution.ledger.run_record import RunRecord, require_one_corpus

__all__ = [
    "CorpusMismatchError",
    "DuplicateEventError",
    "DuplicateRunError",
    "Event",
    "Ledger",
    "LedgerError",
    "PayloadError",
    "RunRecord",
    "SealError",
    "plan_hash",
    "require_one_corpus",
]

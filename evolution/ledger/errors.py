"""What can go wrong with a ledger, each kind with a name a caller can catch."""

from __future__ import annotations


class LedgerError(Exception):
    """The ledger cannot do what was asked; the message is one sentence for the user."""


class PayloadError(LedgerError, ValueError):
    """An event's content is not plain JSON or lacks what its kind must hold."""


class DuplicateEventError(LedgerError):
    """An event of this kind and key is already recorded; the first one stands."""


class DuplicateRunError(DuplicateEventError):
    """A run with this key is already recorded; the same key is never computed twice."""


class SealError(LedgerError):
    """A write would break the seal on the confirmation seeds and split."""


class CorpusMismatchError(LedgerError):
    """Runs on different corpora were about to be compared."""

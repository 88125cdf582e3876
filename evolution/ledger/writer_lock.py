"""One writer a ledger: an advisory lock on a file beside it.

POSIX record locks are used and not flock, because they belong to the process: a forked worker
that outlives its parent does not keep them, and they vanish with `kill -9`. They do not exclude
a second writer of the same process, so those are counted here. The lock file is never deleted:
deleting it would let two writers hold two different files of one name.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from evolution.ledger.errors import LedgerError

_HELD: set[tuple[int, str]] = set()
_HELD_GUARD = threading.Lock()


class WriterLock:
    """The right to write one ledger; held from construction to `release`.

    Raises:
        LedgerError: someone else holds it; the message names the process.
    """

    def __init__(self, ledger: Path) -> None:
        self._identity = (os.getpid(), str(ledger.resolve()))
        self._file: int | None = None
        path = ledger.with_name(ledger.name + ".lock")
        with _HELD_GUARD:
            if self._identity in _HELD:
                raise LedgerError(f"{ledger} is already open for writing in this process; open it with read_only=True")
            try:
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise LedgerError(f"{path} cannot be opened for locking: {error.strerror}") from None
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.read(self._file, 32).decode("ascii", "replace").strip() or "unknown"
                os.close(self._file)
                self._file = None
                raise LedgerError(
                    f"{ledger} is being written by another process (pid {holder}); "
                    "wait for it to end, or open the ledger with read_only=True"
                ) from None
            try:
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
            except OSError:
                pass  # a full disk costs the next one the pid in its message, nothing else
            _HELD.add(self._identity)

    def release(self) -> None:
        """Give the lock up; does nothing the second time or in a forked child."""
        with _HELD_GUARD:
            if self._file is not None and self._identity[0] == os.getpid():
                _HELD.discard(self._identity)
                os.close(self._file)
                self._file = None

"""The SQLite file under a ledger: opened, locked, used by one thread at a time, its errors in our words."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from evolution.ledger.errors import DuplicateEventError, LedgerError, SealError
from evolution.ledger.schema import SCHEMA_VERSION, altered_objects, schema_version, upgrade
from evolution.ledger.writer_lock import WriterLock

_T = TypeVar("_T")
_BUSY_SECONDS = 30.0


class Database:
    """One connection, for writing (then the only one anywhere) or for reading.

    Raises:
        LedgerError: not a ledger, corrupted, of a newer schema, or being written by someone else.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only
        self.guard = threading.RLock()
        self._pid = os.getpid()
        self._lock: WriterLock | None = None
        self._connection: sqlite3.Connection | None = None
        if path.is_dir():
            raise LedgerError(f"{path} is a folder; a ledger is a file in it")
        if not path.parent.is_dir():
            raise LedgerError(f"{path.parent} is not a folder; make it before its ledger")
        if read_only and not path.exists():
            raise LedgerError(f"{path} does not exist; there is no ledger to read")
        if not read_only:
            self._lock = WriterLock(path)
        try:
            self._connection = self._connect_for_reading() if read_only else self._connect_for_writing()
        except sqlite3.Error as error:
            self.close()
            raise self.translated(error) from None
        except BaseException:
            self.close()
            raise

    def _connect(self, address: str) -> sqlite3.Connection:
        """A connection in autocommit: transactions are opened and closed by name only."""
        return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)

    def _connect_for_writing(self) -> sqlite3.Connection:
        connection = self._connect(self.path.resolve().as_uri())
        try:
            version = schema_version(connection, self.path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            if version < SCHEMA_VERSION:
                upgrade(connection, version)
            altered = altered_objects(connection)
            if altered:
                raise LedgerError(
                    f"{self.path} does not have the safeguards evoscale wrote ({'; '.join(altered[:3])}); "
                    "it can be read but not continued"
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_for_reading(self) -> sqlite3.Connection:
        """Read beside a writer; a closed ledger in a folder nobody may write is opened as immutable."""
        address = self.path.resolve().as_uri() + "?mode=ro"
        connection = self._connect(address)
        try:
            try:
                version = schema_version(connection, self.path)
            except sqlite3.OperationalError:
                if self.path.with_name(self.path.name + "-wal").exists():
                    raise
                connection.close()
                connection = self._connect(address + "&immutable=1")
                version = schema_version(connection, self.path)
            if version < SCHEMA_VERSION:
                raise LedgerError(
                    f"{self.path} has ledger schema {version}, older than {SCHEMA_VERSION} (0 means empty); "
                    "open it once for writing to bring it up to date"
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close the file and give up the right to write; the second time does nothing."""
        with self.guard:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def use(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do `work` alone on the connection.

        Raises:
            LedgerError: closed, of another process, or what SQLite said, in our words.
        """
        with self.guard:
            if self._pid != os.getpid():
                raise LedgerError(
                    f"{self.path} was opened by process {self._pid}; a forked process opens its own reader"
                )
            if self._connection is None:
                raise LedgerError(f"{self.path} is closed")
            try:
                return work(self._connection)
            except sqlite3.Error as error:
                raise self.translated(error) from error

    def write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do `work` in one transaction, on the disk when this returns; undone when it raises.

        Raises:
            LedgerError: as `use`, or open for reading only.
        """
        if self.read_only:
            raise LedgerError(f"{self.path} is open for reading only")

        def transaction(connection: sqlite3.Connection) -> _T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result

        return self.use(transaction)

    def translated(self, error: sqlite3.Error) -> LedgerError:
        """SQLite's error as one sentence that says what to do."""
        text = str(error)
        lowered = text.lower()
        if text.startswith("seal:"):
            return SealError(text)
        if text.startswith("duplicate:"):
            return DuplicateEventError(text)
        if "full" in lowered or "disk i/o" in lowered:
            return LedgerError(
                f"{self.path} could not be written ({text}): is the disk full? Nothing of this event was kept, "
                "everything recorded before it is; free some space and go on"
            )
        if "locked" in lowered:
            return LedgerError(f"{self.path} has been locked by another program for {_BUSY_SECONDS:g} seconds ({text})")
        if "not a database" in lowered:
            return LedgerError(f"{self.path} is not a ledger (not a SQLite file)")
        if "malformed" in lowered or "corrupt" in lowered:
            return LedgerError(f"{self.path} is corrupted ({text}); restore it from a copy")
        if "readonly" in lowered or "unable to open" in lowered:
            return LedgerError(f"{self.path} cannot be opened or written ({text}); check its folder's permissions")
        return LedgerError(f"{self.path}: {text}")

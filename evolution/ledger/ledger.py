"""The ledger: the append-only record of everything that was proposed, checked, measured and judged.

Choices:
- SQLite in WAL mode with synchronous=FULL: what a method has returned for survives `kill -9` and a
  power cut. The price, one fsync a write (a few ms), is nothing beside a run.
- One writing process, any number of readers, any number of threads in each.
- What was written is never changed; a mistake is corrected by another event.
- The rules that keep confirmation honest are triggers in the file (`evolution.ledger.schema`).
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from evolution.ledger.database import Database
from evolution.ledger.errors import DuplicateEventError, DuplicateRunError, LedgerError, PayloadError, SealError
from evolution.ledger.integrity import ledger_problems
from evolution.ledger.kinds import check_event
from evolution.ledger.payload import canonical_json, event_digest, plain
from evolution.ledger.plan import check_plan, plan_hash
from evolution.ledger.run_record import RunRecord, require_one_corpus
from evolution.ledger.schema import FIRST_CONFIRMATION_SEED

_SELECT = "SELECT seq, time, kind, key, payload FROM events"


@dataclass(frozen=True, kw_only=True)
class Event:
    """One recorded event: its number, the time (seconds since 1970), kind, key and content."""

    seq: int
    time: float
    kind: str
    key: str | None
    payload: dict[str, Any]


def _event(row: tuple[Any, ...]) -> Event:
    return Event(seq=row[0], time=row[1], kind=row[2], key=row[3], payload=json.loads(row[4]))


def _run(row: tuple[Any, ...]) -> RunRecord:
    content = json.loads(row[4])
    return RunRecord(
        seq=row[0],
        time=row[1],
        key=row[3],
        spec=content["spec"],
        outcome=content["outcome"],
        cost_source=content.get("cost_source"),
    )


class Ledger:
    """A ledger file, open for writing (the default) or reading.

    Args:
        path: the file; it is made when missing, its folder is not.
        read_only: open an existing ledger beside its writer.
        transient: outcome statuses that do not settle a run (`{"timed_out"}`): `commit_run` records
            them as `attempt` events and the run stays open. By default every outcome is final.

    Raises:
        LedgerError: not a ledger, corrupted, of a newer schema, or being written by someone else.
    """

    def __init__(self, path: str | Path, *, read_only: bool = False, transient: Collection[str] = ()) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self._transient = frozenset(transient)
        self._database = Database(self.path, read_only=read_only)

    @classmethod
    def open(
        cls, path: str | Path, *, create: bool = False, read_only: bool = False, transient: Collection[str] = ()
    ) -> Ledger:
        """Open an existing ledger; with `create` also a new one.

        Raises:
            LedgerError: it is missing (and `create` is off), or cannot be used, see the class.
        """
        if not create and not Path(path).exists():
            raise LedgerError(f"{path} does not exist; there is no ledger to open")
        return cls(path, read_only=read_only, transient=transient)

    def close(self) -> None:
        """Close the file and give up the right to write; the second time does nothing."""
        self._database.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Reading and writing

    def _rows(self, tail: str, arguments: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        return self._database.use(
            lambda connection: connection.execute(f"{_SELECT} {tail}", tuple(arguments)).fetchall()
        )

    def record(self, kind: str, payload: Mapping[str, Any], key: str | None = None) -> int:
        """Record one event; it is on the disk when this returns.

        Args:
            kind: one of `evolution.ledger.kinds.REQUIRED`.
            payload: plain JSON (no NaN, no infinity); a pydantic model is dumped.
            key: unique within the kind; required for candidates, runs, plans, openings and verdicts.

        Returns:
            The event's number, counted from 1.

        Raises:
            PayloadError: the content is not plain JSON or lacks what its kind must hold.
            DuplicateEventError: kind and key are already recorded (`DuplicateRunError` for a run).
            SealError: the event would break the seal; nothing is recorded.
            LedgerError: the file cannot be written (disk full, read-only, closed).
        """
        return self.record_many([(kind, payload, key)])[0]

    def record_once(self, kind: str, payload: Mapping[str, Any], key: str) -> bool:
        """Record an event unless its kind and key are on record (a resume): then the first one stands.

        Returns:
            Whether it was recorded now.

        Raises:
            As `record`, without DuplicateEventError.
        """
        with self._database.guard:
            if self.event(kind, key) is not None:
                return False
            self.record(kind, payload, key)
            return True

    def record_many(self, events: Iterable[tuple[str, Mapping[str, Any], str | None]]) -> list[int]:
        """Record several events at once, all or none; errors as in `record`."""
        rows = []
        for kind, payload, key in events:
            content = plain(payload)
            text = canonical_json(content, kind)
            check_event(kind, content, key)
            rows.append((kind, key, text))
        return self._database.write(lambda connection: _append(connection, rows))

    def events(self, kind: str | None = None, after: int = 0, limit: int | None = None) -> list[Event]:
        """Events in the order they happened: of one `kind` or all, with numbers above `after`, at most `limit`."""
        most = -1 if limit is None else limit
        if kind is None:
            rows = self._rows("WHERE seq > ? ORDER BY seq LIMIT ?", (after, most))
        else:
            rows = self._rows("WHERE kind = ? AND seq > ? ORDER BY seq LIMIT ?", (kind, after, most))
        return [_event(row) for row in rows]

    def event(self, kind: str, key: str) -> Event | None:
        """The event of this kind and key; None when there is none."""
        rows = self._rows("WHERE kind = ? AND key = ?", (kind, key))
        return _event(rows[0]) if rows else None

    def last_seq(self) -> int:
        """Number of the newest event; 0 when there is none."""
        return self._database.use(
            lambda connection: int(connection.execute("SELECT COALESCE(MAX(seq), 0) FROM events").fetchone()[0])
        )

    # Runs, candidates, proposals

    def commit_run(self, key: str, spec: Any, outcome: Any, cost_source: str | None = None) -> int:
        """Record what a run came to.

        Args:
            key: `RunSpec.key`.
            spec: the RunSpec or its JSON.
            outcome: the Outcome or its JSON.
            cost_source: where its cost comes from; None = not recorded.

        Raises:
            DuplicateRunError: the key is already recorded, whatever the outcome was.
            SealError: the run may not see what it saw, see `evolution.ledger.schema`.
            PayloadError: not plain JSON, no status, or a key that is not the spec's.
        """
        content = {"spec": plain(spec), "outcome": plain(outcome), "cost_source": cost_source}
        status = content["outcome"].get("status") if isinstance(content["outcome"], Mapping) else None
        if not isinstance(status, str):
            raise PayloadError(f"the outcome of run {key} has no status; a failure is never a number")
        stated = getattr(spec, "key", key)
        if stated != key:
            raise PayloadError(f"the key {key} is not the key of the spec, {stated}")
        with self._database.guard:
            if status not in self._transient:
                return self.record("run", content, key)
            if self.outcome(key) is not None:
                raise DuplicateRunError(f"run {key} is already recorded with a final outcome")
            return self.record("attempt", content, f"{key}:{len(self.attempts(key)) + 1}")

    def attempts(self, key: str) -> list[Event]:
        """The transient outcomes of one run, oldest first."""
        rows = self._rows("WHERE kind = 'attempt' AND key BETWEEN ? AND ? ORDER BY seq", (f"{key}:", f"{key}:\uffff"))
        return [_event(row) for row in rows]

    def outcome(self, key: str) -> dict[str, Any] | None:
        """The outcome of the run with this key as JSON; None when it is not recorded."""
        found = self.event("run", key)
        return None if found is None else found.payload["outcome"]

    def runs(
        self,
        candidate: str | None = None,
        purpose: str | None = None,
        size: str | None = None,
        corpus_hash: str | None = None,
    ) -> list[RunRecord]:
        """Recorded runs in order; each argument given narrows them."""
        wanted = {"candidate": candidate, "purpose": purpose, "size": size, "corpus_hash": corpus_hash}
        given = {name: value for name, value in wanted.items() if value is not None}
        where = "".join(f" AND json_extract(payload, '$.spec.{name}') = ?" for name in given)
        return [_run(row) for row in self._rows(f"WHERE kind = 'run'{where} ORDER BY seq", given.values())]

    def comparable_runs(
        self,
        candidate: str | None = None,
        purpose: str | None = None,
        size: str | None = None,
        corpus_hash: str | None = None,
    ) -> list[RunRecord]:
        """Like `runs`, for rows that are going to be compared with each other.

        Raises:
            CorpusMismatchError: they ran on more than one corpus or tokenizer.
        """
        records = self.runs(candidate, purpose, size, corpus_hash)
        require_one_corpus(records)
        return records

    def candidates(self) -> list[Event]:
        """Candidate events in order; the key is the identity."""
        return self.events("candidate")

    def proposals(self) -> list[Event]:
        """Proposal events in order, whatever became of them."""
        return self.events("proposal")

    # Plans and the seal

    def declare_plan(self, plan: Mapping[str, Any]) -> str:
        """Declare a confirmation in advance; the same plan again (a resume) changes nothing.

        Args:
            plan: see `evolution.ledger.plan.check_plan`.

        Returns:
            The plan's hash.

        Raises:
            PayloadError: a field is missing or malformed.
            SealError: one of its candidates was already confirmed on one of its seeds.
        """
        content = plain(plan)
        check_plan(content)
        key = plan_hash(content)
        with self._database.guard:
            if self.plan(key) is None:
                self.record("plan", content, key)
        return key

    def plan(self, key: str) -> dict[str, Any] | None:
        """The plan of this hash; None when it was not declared."""
        found = self.event("plan", key)
        return None if found is None else found.payload

    def open_seal(self, key: str) -> int:
        """Open the confirmation seeds and split for the plan of this hash: once, ever.

        Raises:
            SealError: unknown plan, opened before, or overlapping with another opened plan.
        """
        try:
            return self.record("seal_opened", {"plan": key}, key)
        except DuplicateEventError:
            raise SealError(
                f"the seal of plan {key[:12]} was already opened, and a plan is opened once; "
                "go on with its missing runs, or declare a plan on fresh seeds"
            ) from None

    def seal_is_open(self, key: str) -> bool:
        """Whether the plan of this hash was opened: then its missing runs may be committed."""
        return self.event("seal_opened", key) is not None

    def fresh_confirmation_seeds(self, n: int) -> list[int]:
        """The next `n` seeds above every seed any plan has named."""
        used = [seed for event in self.events("plan") for seed in event.payload["seeds"]]
        first = max(used, default=FIRST_CONFIRMATION_SEED - 1) + 1
        return list(range(first, first + n))

    def record_verdict(self, plan: str, candidate: str, verdict: Mapping[str, Any]) -> int:
        """Record the verdict on a candidate under the plan of this hash, once.

        Raises:
            SealError: it promotes, and the plan's seal was never opened.
            DuplicateEventError: the plan has already judged this candidate.
        """
        content = {**plain(verdict), "plan": plan, "candidate": candidate}
        return self.record("verdict", content, f"{plan}:{candidate}")

    def integrity(self) -> list[str]:
        """Every problem found in the file, see `evolution.ledger.integrity`; empty when it is sound."""
        return self._database.use(ledger_problems)


def _append(connection: sqlite3.Connection, rows: list[tuple[str, str | None, str]]) -> list[int]:
    """Append events, each chained to the one before it by its digest."""
    written: list[int] = []
    last = connection.execute("SELECT seq, digest FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    seq, digest = last or (0, None)
    for kind, key, text in rows:
        seq, now = seq + 1, time.time()
        digest = event_digest(digest, seq, now, kind, key, text)
        try:
            connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", (seq, now, kind, key, text, digest))
        except sqlite3.IntegrityError as error:
            raise _refusal(error, kind, key, text) from None
        written.append(seq)
    return written


def _refusal(error: sqlite3.IntegrityError, kind: str, key: str | None, text: str) -> LedgerError:
    """The refusal of one event, with the values that were seen."""
    reason = str(error)
    if reason.startswith("duplicate:"):
        if kind in ("run", "attempt"):
            return DuplicateRunError(f"run {key} is already recorded; the same key is never computed twice")
        return DuplicateEventError(f"a {kind!r} event with key {key!r} is already recorded; events are never replaced")
    if not reason.startswith("seal:"):
        return LedgerError(f"the {kind!r} event was refused: {reason}")
    spec = json.loads(text).get("spec")
    seen = f"event {kind!r}, key {key!r}"
    if isinstance(spec, dict):
        fields = ("purpose", "candidate", "size", "seed", "eval_split")
        seen = ", ".join(f"{name} {spec.get(name)!r}" for name in fields)
    return SealError(f"{reason.removeprefix('seal: ')} (got {seen})")

"""The ledger's tables, triggers and migrations.

One append-only table. The rules that make a verdict honest are triggers in the database file
itself, so that no caller, and no other program that opens the file, can go round them:

- events are never changed, deleted, replaced or numbered out of order;
- a run states its purpose (search, tuning, confirmation) and a whole-numbered seed;
- search and tuning never touch the confirmation seeds (>= 20,000) or the confirmation split;
- a confirmation run needs an opened plan that holds its candidate, seed and size (and corpus, where
  the plan names one), a seed and split that no search or tuning run used, and is done once;
- a plan cannot be declared after the seeds it would use were looked at for one of its candidates;
- a plan is opened once, and never one that shares a candidate and a seed with another opened plan;
- nothing is promoted by a plan that was not opened.

SQLite wants RAISE messages to be literals; `evolution.ledger.ledger` adds the values seen.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from evolution.ledger.errors import LedgerError

APPLICATION_ID = 0x65766F73  # "evos"
FIRST_CONFIRMATION_SEED = 20_000
CONFIRMATION_SPLIT = "confirmation_test"

_PURPOSE = "json_extract(NEW.payload, '$.spec.purpose')"
_SEED = "json_extract(NEW.payload, '$.spec.seed')"
_SPLIT = "json_extract(NEW.payload, '$.spec.eval_split')"
_CANDIDATE = "json_extract(NEW.payload, '$.spec.candidate')"
_SIZE = "json_extract(NEW.payload, '$.spec.size')"
_CORPUS = "json_extract(NEW.payload, '$.spec.corpus_hash')"
_IS_RUN = "NEW.kind IN ('run', 'attempt')"


def _trigger(name: str, when: str, message: str) -> str:
    return f"CREATE TRIGGER {name} BEFORE INSERT ON events WHEN {when}\nBEGIN SELECT RAISE(ABORT, '{message}'); END"


def _in_plan(plan: str, candidate: str, seed: str) -> str:
    """SQL: the plan payload holds the candidate (as reference or on the shortlist) and the seed."""
    return (
        f"(json_extract({plan}, '$.reference') = {candidate} "
        f"OR EXISTS (SELECT 1 FROM json_each({plan}, '$.shortlist') WHERE value = {candidate})) "
        f"AND EXISTS (SELECT 1 FROM json_each({plan}, '$.seeds') WHERE value = {seed})"
    )


_VERSION_1: tuple[str, ...] = (
    """CREATE TABLE events (
  seq INTEGER PRIMARY KEY CHECK (seq > 0),
  time REAL NOT NULL,
  kind TEXT NOT NULL CHECK (kind <> ''),
  key TEXT,
  payload TEXT NOT NULL CHECK (json_valid(payload)),
  digest TEXT
)""",
    "CREATE UNIQUE INDEX events_by_key ON events (kind, key) WHERE key IS NOT NULL",
    "CREATE INDEX events_by_kind ON events (kind, seq)",
    "CREATE INDEX runs_by_candidate ON events (json_extract(payload, '$.spec.candidate')) WHERE kind = 'run'",
    "CREATE INDEX runs_by_seed ON events (json_extract(payload, '$.spec.seed'), "
    "json_extract(payload, '$.spec.purpose')) WHERE kind = 'run'",
    "CREATE INDEX runs_by_purpose ON events (json_extract(payload, '$.spec.purpose'), "
    "json_extract(payload, '$.spec.eval_split')) WHERE kind = 'run'",
    # Append only. REPLACE would delete without firing delete triggers, so collisions are refused up front.
    "CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events\n"
    "BEGIN SELECT RAISE(ABORT, 'ledger: events are never changed'); END",
    "CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events\n"
    "BEGIN SELECT RAISE(ABORT, 'ledger: events are never deleted'); END",
    _trigger(
        "events_are_not_replaced",
        "EXISTS (SELECT 1 FROM events WHERE seq = NEW.seq)",
        "ledger: events are never replaced",
    ),
    _trigger(
        "keys_are_not_reused",
        "NEW.key IS NOT NULL AND EXISTS (SELECT 1 FROM events WHERE kind = NEW.kind AND key = NEW.key)",
        "duplicate: this kind and key are already recorded",
    ),
    "CREATE TRIGGER events_are_numbered AFTER INSERT ON events\n"
    "WHEN NEW.seq <> 1 + COALESCE((SELECT MAX(seq) FROM events WHERE seq <> NEW.seq), 0)\n"
    "BEGIN SELECT RAISE(ABORT, 'ledger: events are numbered without gaps'); END",
    # Runs.
    _trigger(
        "runs_are_described",
        f"{_IS_RUN} AND (NEW.key IS NULL OR COALESCE({_PURPOSE}, '') NOT IN ('search', 'tuning', 'confirmation') "
        "OR COALESCE(json_type(NEW.payload, '$.spec.seed'), '') <> 'integer' "
        "OR COALESCE(json_type(NEW.payload, '$.spec.candidate'), '') <> 'text')",
        "seal: a run needs a key and a spec with candidate, whole-numbered seed and purpose "
        "(search, tuning or confirmation)",
    ),
    _trigger(
        "search_keeps_off_confirmation",
        f"{_IS_RUN} AND {_PURPOSE} <> 'confirmation' "
        f"AND ({_SEED} >= {FIRST_CONFIRMATION_SEED} OR {_SPLIT} IS '{CONFIRMATION_SPLIT}')",
        f"seal: seeds from {FIRST_CONFIRMATION_SEED} on and the split {CONFIRMATION_SPLIT} are for confirmation only",
    ),
    _trigger(
        "confirmation_is_fresh",
        f"{_IS_RUN} AND {_PURPOSE} = 'confirmation' AND ("
        f"{_SEED} < {FIRST_CONFIRMATION_SEED} OR {_SPLIT} IS NOT '{CONFIRMATION_SPLIT}' "
        "OR EXISTS (SELECT 1 FROM events WHERE kind = 'run' "
        f"AND json_extract(payload, '$.spec.seed') = {_SEED} "
        "AND json_extract(payload, '$.spec.purpose') IN ('search', 'tuning')) "
        "OR EXISTS (SELECT 1 FROM events WHERE kind = 'run' "
        "AND json_extract(payload, '$.spec.purpose') IN ('search', 'tuning') "
        f"AND json_extract(payload, '$.spec.eval_split') = {_SPLIT}))",
        f"seal: a confirmation run needs a seed from {FIRST_CONFIRMATION_SEED} on and the split {CONFIRMATION_SPLIT}, "
        "neither ever used in search or tuning",
    ),
    _trigger(
        "confirmation_needs_an_opened_plan",
        f"{_IS_RUN} AND {_PURPOSE} = 'confirmation' AND NOT EXISTS ("
        "SELECT 1 FROM events AS opened JOIN events AS plan ON plan.kind = 'plan' AND plan.key = opened.key "
        f"WHERE opened.kind = 'seal_opened' AND {_in_plan('plan.payload', _CANDIDATE, _SEED)} "
        f"AND EXISTS (SELECT 1 FROM json_each(plan.payload, '$.sizes') WHERE value = {_SIZE}) "
        f"AND COALESCE(json_extract(plan.payload, '$.corpus_hash') = {_CORPUS}, "
        "json_extract(plan.payload, '$.corpus_hash') IS NULL))",
        "seal: no opened plan holds this candidate, seed, size and corpus",
    ),
    _trigger(
        "confirmation_is_done_once",
        f"NEW.kind = 'run' AND {_PURPOSE} = 'confirmation' AND EXISTS (SELECT 1 FROM events WHERE kind = 'run' "
        f"AND json_extract(payload, '$.spec.seed') = {_SEED} "
        "AND json_extract(payload, '$.spec.purpose') = 'confirmation' AND key <> NEW.key "
        f"AND json_extract(payload, '$.spec.candidate') = {_CANDIDATE} "
        f"AND json_extract(payload, '$.spec.size') = {_SIZE})",
        "seal: this candidate was already confirmed at this size with this seed under other settings",
    ),
    # Plans, openings, verdicts.
    _trigger(
        "plans_are_whole",
        "NEW.kind = 'plan' AND (NEW.key IS NULL "
        "OR COALESCE(json_type(NEW.payload, '$.reference'), '') <> 'text' "
        "OR COALESCE(json_type(NEW.payload, '$.shortlist'), '') <> 'array' "
        "OR COALESCE(json_type(NEW.payload, '$.seeds'), '') <> 'array' "
        "OR COALESCE(json_type(NEW.payload, '$.sizes'), '') <> 'array')",
        "seal: a plan needs a key, a reference and lists of shortlist, seeds and sizes",
    ),
    _trigger(
        "plans_come_before_looking",
        "NEW.kind = 'plan' AND EXISTS (SELECT 1 FROM json_each(NEW.payload, '$.seeds') AS planned "
        "JOIN events ON kind = 'run' AND json_extract(payload, '$.spec.seed') = planned.value "
        "AND json_extract(payload, '$.spec.purpose') = 'confirmation' "
        "WHERE json_extract(payload, '$.spec.candidate') = json_extract(NEW.payload, '$.reference') "
        "OR json_extract(payload, '$.spec.candidate') IN (SELECT value FROM json_each(NEW.payload, '$.shortlist')))",
        "seal: a candidate of this plan was already confirmed on a seed of this plan, so it is not declared in advance",
    ),
    _trigger(
        "openings_name_a_plan",
        "NEW.kind = 'seal_opened' AND NOT EXISTS (SELECT 1 FROM events WHERE kind = 'plan' AND key = NEW.key)",
        "seal: no plan of this hash was declared",
    ),
    _trigger(
        "opened_plans_do_not_overlap",
        "NEW.kind = 'seal_opened' AND EXISTS ("
        "SELECT 1 FROM events AS mine, json_each(mine.payload, '$.seeds') AS seed, "
        "json_each(json_insert(json_extract(mine.payload, '$.shortlist'), '$[#]', "
        "json_extract(mine.payload, '$.reference'))) AS arm "
        "JOIN events AS opened ON opened.kind = 'seal_opened' AND opened.key <> NEW.key "
        "JOIN events AS other ON other.kind = 'plan' AND other.key = opened.key "
        f"WHERE mine.kind = 'plan' AND mine.key = NEW.key AND {_in_plan('other.payload', 'arm.value', 'seed.value')})",
        "seal: another opened plan shares a candidate and a seed with this one; declare it on fresh seeds",
    ),
    _trigger(
        "promotion_needs_an_opened_plan",
        "NEW.kind = 'verdict' AND json_extract(NEW.payload, '$.decision') = 'promoted' "
        "AND NOT EXISTS (SELECT 1 FROM events WHERE kind = 'seal_opened' "
        "AND key = json_extract(NEW.payload, '$.plan'))",
        "seal: a candidate is promoted only by a plan whose seal was opened",
    ),
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_VERSION_1,)
"""`MIGRATIONS[n]` brings a ledger of schema version n to n + 1; version 0 is an empty file."""

SCHEMA_VERSION = len(MIGRATIONS)


def schema_version(connection: sqlite3.Connection, path: Path) -> int:
    """Version of an existing ledger; 0 for an empty file.

    Raises:
        LedgerError: another kind of database, or written by a newer evoscale.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    if application != APPLICATION_ID:
        tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        if application or version or tables:
            raise LedgerError(f"{path} is a SQLite database but not a ledger")
        return 0
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"{path} has ledger schema {version}, newer than the {SCHEMA_VERSION} this evoscale knows; update evoscale"
        )
    return version


def upgrade(connection: sqlite3.Connection, version: int, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
    """Apply the migrations from `version` on, all or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for number in range(version, len(migrations)):
            for statement in migrations[number]:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def schema_objects(connection: sqlite3.Connection) -> dict[str, str]:
    """Name to SQL of every table, index and trigger."""
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {str(name): str(sql) for name, sql in rows}


def altered_objects(connection: sqlite3.Connection) -> list[str]:
    """What differs from the schema this version writes: dropped, changed or added objects."""
    pristine = sqlite3.connect(":memory:", isolation_level=None)
    try:
        upgrade(pristine, 0)
        wanted = schema_objects(pristine)
    finally:
        pristine.close()
    found = schema_objects(connection)
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} was changed" for name in wanted if name in found and found[name] != wanted[name]]
    problems += [f"{name} was added" for name in found if name not in wanted and not name.startswith("sqlite_")]
    return problems

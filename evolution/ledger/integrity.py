"""Is a ledger what it claims to be? Everything that can be checked from the file alone."""

from __future__ import annotations

import json
import sqlite3

from evolution.ledger.errors import PayloadError
from evolution.ledger.kinds import REQUIRED
from evolution.ledger.payload import canonical_json, event_digest
from evolution.ledger.schema import CONFIRMATION_SPLIT, FIRST_CONFIRMATION_SEED, altered_objects

MOST_PROBLEMS = 100


def ledger_problems(connection: sqlite3.Connection) -> list[str]:
    """Every problem found, one sentence each; empty when the ledger is sound.

    Checked: SQLite's own structure; tables, indices and triggers as evoscale writes them; numbering
    without gaps; the chain of digests; payloads that parse and are canonical; known kinds; and, over
    again from the rows, that every confirmation run came after the opening of a plan that holds it.
    Not detectable from the file alone: events cut off at the end.
    """
    problems: list[str] = []
    try:
        rows = connection.execute("PRAGMA integrity_check(20)").fetchall()
        problems += [f"SQLite: {row[0]}" for row in rows if row[0] != "ok"]
        problems += [f"schema: {problem}" for problem in altered_objects(connection)]
        problems += _event_problems(connection)
    except sqlite3.Error as error:
        problems.append(f"SQLite cannot read it to the end: {error}")
    if len(problems) > MOST_PROBLEMS:
        problems[MOST_PROBLEMS:] = [f"and {len(problems) - MOST_PROBLEMS} more"]
    return problems


def _event_problems(connection: sqlite3.Connection) -> list[str]:
    problems: list[str] = []
    expected, previous = 1, None
    plans: dict[str, dict[str, object]] = {}
    opened: list[dict[str, object]] = []
    searched: set[object] = set()
    rows = connection.execute("SELECT seq, time, kind, key, payload, digest FROM events NOT INDEXED ORDER BY seq")
    for seq, time, kind, key, text, digest in rows:
        if seq != expected:
            problems.append(f"events {expected} to {seq - 1} are missing")
        expected = seq + 1
        if digest != event_digest(previous, seq, time, kind, key, text):
            problems.append(f"event {seq} ({kind}) was not written by evoscale or was changed: its digest does not fit")
        previous = digest
        if kind not in REQUIRED:
            problems.append(f"event {seq} has the unknown kind {kind!r}")
        try:
            payload = json.loads(text)
            if canonical_json(payload) != text:
                problems.append(f"the payload of event {seq} ({kind}) is not in canonical form")
        except (ValueError, RecursionError, PayloadError) as error:
            problems.append(f"the payload of event {seq} ({kind}) does not parse: {error}")
            continue
        if kind == "plan":
            plans[key] = payload
        elif kind == "seal_opened" and key in plans:
            opened.append(plans[key])
        elif kind == "seal_opened":
            problems.append(f"event {seq} opens the seal of a plan that was not declared before")
        elif kind in ("run", "attempt"):
            problems += _seal_problems(seq, payload.get("spec"), opened, searched)
    return problems


def _seal_problems(seq: int, spec: object, opened: list[dict[str, object]], searched: set[object]) -> list[str]:
    """The seal's rules, checked in order of the events; `searched` gathers the seeds of search and tuning."""
    if not isinstance(spec, dict):
        return [f"run event {seq} has no spec"]
    seed, split = spec.get("seed"), spec.get("eval_split")
    if spec.get("purpose") != "confirmation":
        searched.add(seed)
        if split == CONFIRMATION_SPLIT or not isinstance(seed, int) or seed >= FIRST_CONFIRMATION_SEED:
            return [f"run event {seq} broke the seal: purpose {spec.get('purpose')!r} with seed {seed} on {split}"]
        return []
    for plan in opened:
        arms, seeds, sizes = plan.get("shortlist"), plan.get("seeds"), plan.get("sizes")
        if not isinstance(arms, list) or not isinstance(seeds, list) or not isinstance(sizes, list):
            continue
        inside = spec.get("candidate") in [*arms, plan.get("reference")] and seed in seeds and spec.get("size") in sizes
        if inside and seed not in searched and split == CONFIRMATION_SPLIT:
            return []
    return [
        f"run event {seq} broke the seal: no plan opened before it holds it, or its seed or split was used in search"
    ]

"""What `integrity` finds after someone went round every safeguard."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evolution.ledger import Ledger

Json = dict[str, Any]


def _tamper(path: Path, *statements: str) -> None:
    """Drop the triggers, do it, put them back: the file looks untouched from outside."""
    connection = sqlite3.connect(path, isolation_level=None)
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute("PRAGMA ignore_check_constraints = ON")
    for statement in statements:
        connection.execute(statement)
    for _, sql in triggers:
        connection.execute(sql)
    connection.close()


def _problems(path: Path) -> list[str]:
    with Ledger(path) as ledger:
        return ledger.integrity()


@pytest.fixture
def filled(path: Path, done: Json) -> Path:
    with Ledger(path) as ledger:
        for number in range(6):
            ledger.record("note", {"n": number})
        assert ledger.integrity() == []
    return path


def test_a_changed_payload_breaks_the_chain(filled: Path) -> None:
    _tamper(filled, """UPDATE events SET payload = '{"n":9}' WHERE seq = 3""")
    assert _problems(filled) == ["event 3 (note) was not written by evoscale or was changed: its digest does not fit"]


def test_a_missing_event_is_a_gap(filled: Path) -> None:
    _tamper(filled, "DELETE FROM events WHERE seq IN (3, 4)")
    problems = _problems(filled)
    assert problems[0] == "events 3 to 4 are missing"
    assert problems[1].startswith("event 5 (note) was not written by evoscale")


def test_foreign_events_are_noticed(filled: Path) -> None:
    _tamper(
        filled,
        "INSERT INTO events (time, kind, payload) VALUES (0, 'gossip', '{}')",
        "INSERT INTO events (time, kind, payload) VALUES (0, 'note', '{\"a\": 1, \"a\": 2}')",
    )
    text = "\n".join(_problems(filled))
    assert "event 7 has the unknown kind 'gossip'" in text
    assert "event 7 (gossip) was not written by evoscale" in text
    assert "the payload of event 8 (note) is not in canonical form" in text


def test_a_payload_that_does_not_parse(filled: Path) -> None:
    _tamper(filled, "UPDATE events SET payload = '{broken' WHERE seq = 2")
    text = "\n".join(_problems(filled))
    assert "the payload of event 2 (note) does not parse" in text


def test_added_and_changed_objects(filled: Path) -> None:
    connection = sqlite3.connect(filled)
    connection.execute("CREATE TABLE extra (x)")
    connection.execute("DROP INDEX events_by_kind")
    connection.execute("CREATE INDEX events_by_kind ON events (kind)")
    connection.close()
    with Ledger(filled, read_only=True) as ledger:
        assert sorted(ledger.integrity()) == ["schema: events_by_kind was changed", "schema: extra was added"]


def test_a_broken_seal_is_found_from_the_rows(
    path: Path, make_spec: Callable[..., Json], make_plan: Callable[..., Json], done: Json
) -> None:
    with Ledger(path) as ledger:
        ledger.open_seal(ledger.declare_plan(make_plan()))
        ledger.commit_run("k", make_spec("a", 20_000, "confirmation"), done)
    smuggled = [
        make_spec("a", 20_001, "confirmation", "d80"),
        make_spec("a", 20_001, "search"),
        make_spec("a", 20_001, "confirmation"),
    ]
    _tamper(
        path,
        *(
            f"INSERT INTO events (time, kind, key, payload) VALUES (0, 'run', 'x{number}', "
            f"'{json.dumps({'spec': spec, 'outcome': done}, sort_keys=True, separators=(',', ':'))}')"
            for number, spec in enumerate(smuggled)
        ),
    )
    broken = [problem for problem in _problems(path) if "broke the seal" in problem]
    assert [problem.split()[2] for problem in broken] == ["4", "5", "6"]

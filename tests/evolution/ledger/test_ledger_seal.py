"""The seal, through the methods and around them: straight into the SQLite file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evolution.ledger import DuplicateEventError, Ledger, PayloadError, SealError, plan_hash
from evolution.ledger.schema import CONFIRMATION_SPLIT, FIRST_CONFIRMATION_SEED

Json = dict[str, Any]
Make = Callable[..., Json]


class Intruder:
    """A program that writes the file without asking the ledger."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)

    def insert(self, kind: str, key: str | None, payload: Json, verb: str = "INSERT") -> None:
        self.connection.execute(
            f"{verb} INTO events (time, kind, key, payload) VALUES (0, ?, ?, ?)", (kind, key, json.dumps(payload))
        )

    def run(self, key: str, spec: Json, verb: str = "INSERT") -> None:
        self.insert("run", key, {"spec": spec, "outcome": {"status": "completed", "val_loss": 1.0}}, verb)


@pytest.fixture
def intruder(ledger: Ledger, path: Path) -> Iterator[Intruder]:
    other = Intruder(path)
    yield other
    other.connection.close()


def test_the_ranges_and_splits_are_those_of_training() -> None:
    from training.run_spec import seed_range, split_for

    assert seed_range("confirmation").start == FIRST_CONFIRMATION_SEED
    assert split_for("confirmation") == CONFIRMATION_SPLIT
    assert max(max(seed_range("search")), max(seed_range("tuning"))) < FIRST_CONFIRMATION_SEED


def test_a_confirmation_goes_its_way(ledger: Ledger, make_spec: Make, make_plan: Make, done: Json) -> None:
    ledger.commit_run("s", make_spec("a", 0), done)
    key = ledger.declare_plan(make_plan())
    assert key == plan_hash(make_plan())
    assert ledger.plan(key) == make_plan()
    assert not ledger.seal_is_open(key)
    ledger.open_seal(key)
    assert ledger.seal_is_open(key)
    for arm in ("ref", "a", "b"):
        for size in ("d32", "d48"):
            for seed in (20_000, 20_001):
                ledger.commit_run(f"{arm}{size}{seed}", make_spec(arm, seed, "confirmation", size), done)
    assert len(ledger.runs(purpose="confirmation")) == 12
    ledger.record_verdict(key, "a", {"decision": "promoted", "sentence": "a is better."})
    with pytest.raises(DuplicateEventError):
        ledger.record_verdict(key, "a", {"decision": "not promoted", "sentence": "a is not better."})
    assert ledger.integrity() == []


def test_an_opened_plan_is_resumed_without_a_second_opening(
    path: Path, make_spec: Make, make_plan: Make, done: Json
) -> None:
    with Ledger(path) as ledger:
        key = ledger.declare_plan(make_plan())
        ledger.open_seal(key)
        ledger.commit_run("1", make_spec("a", 20_000, "confirmation"), done)
    with Ledger(path) as ledger:
        assert ledger.declare_plan(make_plan()) == key
        assert ledger.seal_is_open(key)
        ledger.commit_run("2", make_spec("a", 20_001, "confirmation"), done)
        with pytest.raises(SealError, match="already opened"):
            ledger.open_seal(key)
        assert len(ledger.events("plan")) == len(ledger.events("seal_opened")) == 1


def test_nothing_is_confirmed_before_the_opening(
    ledger: Ledger, intruder: Intruder, make_spec: Make, make_plan: Make, done: Json
) -> None:
    spec = make_spec("a", 20_000, "confirmation")
    with pytest.raises(SealError, match=r"no opened plan.*candidate 'a'.*seed 20000"):
        ledger.commit_run("k", spec, done)
    ledger.declare_plan(make_plan())
    with pytest.raises(SealError, match="no opened plan"):
        ledger.commit_run("k", spec, done)
    for verb in ("INSERT", "INSERT OR REPLACE", "INSERT OR IGNORE"):
        with pytest.raises(sqlite3.IntegrityError, match="seal: no opened plan"):
            intruder.run("k", spec, verb)
    assert ledger.runs() == []


@pytest.mark.parametrize(
    "change",
    [
        {"candidate": "c"},
        {"seed": 20_002},
        {"size": "d80"},
        {"corpus_hash": "decaf"},
        {"corpus_hash": None},
        {"eval_split": "search_validation"},
        {"eval_split": None},
        {"seed": 3},
        {"seed": "20000"},
        {"seed": 20000.0},
        {"seed": None},
        {"seed": [20_000]},
        {"candidate": ["a"]},
        {"purpose": "Confirmation"},
        {"purpose": None},
        {"purpose": ["search"]},
    ],
)
def test_only_what_the_opened_plan_holds_is_confirmed(
    ledger: Ledger, intruder: Intruder, make_spec: Make, make_plan: Make, done: Json, change: Json
) -> None:
    ledger.open_seal(ledger.declare_plan(make_plan(corpus_hash="c0ffee")))
    spec = {**make_spec("a", 20_000, "confirmation"), **change}
    with pytest.raises(SealError):
        ledger.commit_run("k", spec, done)
    with pytest.raises(sqlite3.IntegrityError, match="seal:"):
        intruder.run("k", spec)
    ledger.commit_run("k", make_spec("a", 20_000, "confirmation"), done)


def test_parts_of_two_plans_do_not_make_one(ledger: Ledger, make_spec: Make, make_plan: Make, done: Json) -> None:
    ledger.open_seal(ledger.declare_plan(make_plan(sizes=["d32"])))
    ledger.open_seal(ledger.declare_plan(make_plan(sizes=["d48"], seeds=[20_005])))
    with pytest.raises(SealError, match="no opened plan"):
        ledger.commit_run("k", make_spec("a", 20_005, "confirmation", "d32"), done)


@pytest.mark.parametrize("purpose", ["search", "tuning"])
@pytest.mark.parametrize("change", [{"eval_split": "confirmation_test"}, {"seed": 20_000}, {"seed": 10**12}])
def test_search_and_tuning_never_see_the_confirmation_part(
    ledger: Ledger, intruder: Intruder, make_spec: Make, done: Json, purpose: str, change: Json
) -> None:
    spec = {**make_spec("a", 1, purpose), **change}
    with pytest.raises(SealError, match="for confirmation only"):
        ledger.commit_run("k", spec, done)
    with pytest.raises(sqlite3.IntegrityError, match="for confirmation only"):
        intruder.run("k", spec)
    assert ledger.events() == []


@pytest.mark.parametrize("change", [{"seed": 20_001}, {"eval_split": "confirmation_test"}])
def test_a_seed_or_split_that_search_has_seen_confirms_nothing(
    ledger: Ledger, intruder: Intruder, make_spec: Make, make_plan: Make, done: Json, change: Json
) -> None:
    """The rule holds on its own: here the one that keeps search off was taken away for a moment."""
    name = "search_keeps_off_confirmation"
    query = "SELECT sql FROM sqlite_master WHERE name = ?"
    (sql,) = intruder.connection.execute(query, (name,)).fetchone()
    intruder.connection.execute(f"DROP TRIGGER {name}")
    intruder.run("s", {**make_spec("z", 0), **change})
    intruder.connection.execute(sql)
    ledger.open_seal(ledger.declare_plan(make_plan()))
    with pytest.raises(SealError, match="neither ever used in search"):
        ledger.commit_run("k", make_spec("a", 20_001, "confirmation"), done)


def test_a_plan_is_declared_before_looking(
    ledger: Ledger, intruder: Intruder, make_spec: Make, make_plan: Make, done: Json
) -> None:
    ledger.open_seal(ledger.declare_plan(make_plan()))
    ledger.commit_run("k", make_spec("ref", 20_001, "confirmation"), done)
    late = make_plan(shortlist=["c"], seeds=[20_001, 20_002])
    with pytest.raises(SealError, match="not declared in advance"):
        ledger.declare_plan(late)
    with pytest.raises(sqlite3.IntegrityError, match="not declared in advance"):
        intruder.insert("plan", "late", late)
    ledger.declare_plan(make_plan(shortlist=["c"], seeds=[20_002]))
    ledger.declare_plan(make_plan(reference="c", shortlist=["d"], seeds=[20_001]))


def test_plans_declared_side_by_side_cannot_share_what_they_look_at(
    ledger: Ledger, intruder: Intruder, make_plan: Make
) -> None:
    first = ledger.declare_plan(make_plan())
    twin = ledger.declare_plan(make_plan(alpha=0.2))
    apart = ledger.declare_plan(make_plan(seeds=[20_009]))
    ledger.open_seal(first)
    with pytest.raises(SealError, match="shares a candidate and a seed"):
        ledger.open_seal(twin)
    with pytest.raises(sqlite3.IntegrityError, match="shares a candidate and a seed"):
        intruder.insert("seal_opened", twin, {})
    ledger.open_seal(apart)


def test_a_plan_is_opened_once_and_must_be_known(ledger: Ledger, intruder: Intruder, make_plan: Make) -> None:
    with pytest.raises(SealError, match="no plan of this hash"):
        ledger.open_seal("unknown")
    key = ledger.declare_plan(make_plan())
    ledger.open_seal(key)
    for verb in ("INSERT", "INSERT OR REPLACE"):
        with pytest.raises(sqlite3.IntegrityError, match="already recorded"):
            intruder.insert("seal_opened", key, {}, verb)
    with pytest.raises(sqlite3.IntegrityError, match="no plan of this hash"):
        intruder.insert("seal_opened", None, {})
    assert len(ledger.events("seal_opened")) == 1


def test_one_setting_a_seed(ledger: Ledger, make_spec: Make, make_plan: Make, done: Json) -> None:
    """Trying learning rates on the confirmation seeds and keeping the best would be a search."""
    ledger.open_seal(ledger.declare_plan(make_plan()))
    ledger.commit_run("k", make_spec("a", 20_000, "confirmation", learning_rate=0.01), done)
    with pytest.raises(SealError, match="under other settings"):
        ledger.commit_run("l", make_spec("a", 20_000, "confirmation", learning_rate=0.02), done)


def test_transient_outcomes_are_under_the_seal_too(path: Path, make_spec: Make) -> None:
    with Ledger(path, transient={"timed_out"}) as ledger, pytest.raises(SealError):
        ledger.commit_run("k", make_spec("a", 20_000, "confirmation"), {"status": "timed_out", "limit_seconds": 1})


def test_nothing_is_promoted_without_an_opening(ledger: Ledger, make_plan: Make) -> None:
    key = ledger.declare_plan(make_plan())
    with pytest.raises(SealError, match="promoted only by a plan whose seal was opened"):
        ledger.record_verdict(key, "a", {"decision": "promoted"})
    ledger.record_verdict(key, "b", {"decision": "rejected", "sentence": "It leaks."})
    ledger.open_seal(key)
    ledger.record_verdict(key, "a", {"decision": "promoted"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": None}, "reference is None"),
        ({"shortlist": []}, "at least one entry"),
        ({"shortlist": ["a", "ref"]}, "nothing is compared with itself"),
        ({"seeds": [20_000, 20_000]}, "an entry twice"),
        ({"seeds": [42]}, "seeds hold 42; confirmation seeds start at 20000"),
        ({"seeds": [True]}, "every entry is a int"),
        ({"sizes": "d32"}, "sizes is 'd32'"),
        ({"sizes": [32]}, "every entry is a str"),
        ({"alpha": float("nan")}, "alpha is nan"),
    ],
)
def test_plans_the_seal_could_not_enforce_are_refused(
    ledger: Ledger, make_plan: Make, change: Json, message: str
) -> None:
    with pytest.raises(PayloadError, match=message):
        ledger.declare_plan(make_plan(**change))


def test_fresh_seeds_are_above_all_that_were_named(ledger: Ledger, make_plan: Make) -> None:
    assert ledger.fresh_confirmation_seeds(2) == [20_000, 20_001]
    ledger.declare_plan(make_plan(seeds=[20_007, 20_003]))
    assert ledger.fresh_confirmation_seeds(3) == [20_008, 20_009, 20_010]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET payload = '{}' WHERE seq = 1",
        "UPDATE OR REPLACE events SET seq = 2 WHERE seq = 1",
        "DELETE FROM events WHERE seq = 1",
        "DELETE FROM events",
        "REPLACE INTO events (seq, time, kind, payload) VALUES (1, 0, 'note', '{}')",
        "REPLACE INTO events (time, kind, key, payload) VALUES (0, 'candidate', 'a', '{}')",
        "INSERT INTO events (time, kind, key, payload) VALUES (0, 'candidate', 'a', '{}') "
        "ON CONFLICT DO UPDATE SET payload = '{}'",
        "INSERT INTO events (seq, time, kind, payload) VALUES (9, 0, 'note', '{}')",
        "INSERT INTO events (seq, time, kind, payload) VALUES (-1, 0, 'note', '{}')",
        "INSERT INTO events (time, kind, payload) VALUES (0, 'note', '{broken')",
        "INSERT INTO events (time, kind, payload) VALUES (0, '', '{}')",
    ],
)
def test_what_is_written_stays(ledger: Ledger, intruder: Intruder, statement: str) -> None:
    ledger.record("candidate", {"block": "x"}, key="a")
    ledger.record("note", {"n": 1})
    before = ledger.events()
    with pytest.raises(sqlite3.DatabaseError):
        intruder.connection.execute(statement)
    assert ledger.events() == before
    assert ledger.integrity() == []

"""Opening, locking, migrating, and a disk that is full."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evolution.ledger import Ledger, LedgerError
from evolution.ledger.schema import MIGRATIONS, SCHEMA_VERSION, upgrade

Json = dict[str, Any]
ROOT = Path(__file__).parents[3]


def python(source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `source` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", source, *arguments], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
    )


def test_a_missing_file_is_made_only_when_asked(path: Path) -> None:
    with pytest.raises(LedgerError, match="does not exist"):
        Ledger.open(path)
    with pytest.raises(LedgerError, match="does not exist"):
        Ledger(path, read_only=True)
    assert not path.exists()
    Ledger.open(path, create=True).close()
    with Ledger.open(path) as ledger:
        assert ledger.events() == []


def test_what_is_not_a_ledger_is_refused_and_left_alone(path: Path, tmp_path: Path) -> None:
    path.write_text("dear diary, " * 500)
    with pytest.raises(LedgerError, match="not a ledger"):
        Ledger(path)
    assert path.read_text().startswith("dear diary")
    other = tmp_path / "other.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE cats (name)")
    connection.commit()
    connection.close()
    before = other.read_bytes()
    for read_only in (False, True):
        with pytest.raises(LedgerError, match="SQLite database but not a ledger"):
            Ledger(other, read_only=read_only)
    assert other.read_bytes() == before
    with pytest.raises(LedgerError, match="is a folder"):
        Ledger(tmp_path)
    with pytest.raises(LedgerError, match="is not a folder; make it"):
        Ledger(tmp_path / "missing" / "ledger.sqlite")


def test_an_empty_file_becomes_a_ledger_when_written(path: Path) -> None:
    """A process killed between making the file and filling it leaves one."""
    path.touch()
    with pytest.raises(LedgerError, match="open it once for writing"):
        Ledger(path, read_only=True)
    with Ledger.open(path) as ledger:
        assert ledger.record("note", {}) == 1


def test_a_newer_schema_is_refused(path: Path) -> None:
    Ledger(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    for read_only in (False, True):
        with pytest.raises(LedgerError, match=r"newer than .* update evoscale"):
            Ledger(path, read_only=read_only)


def test_a_migration_keeps_the_events_or_changes_nothing(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.record("note", {"n": 1})
    connection = sqlite3.connect(path, isolation_level=None)
    broken = (*MIGRATIONS, ("CREATE TABLE extra (x)", "CREATE TABLE events (x)"))
    with pytest.raises(sqlite3.OperationalError):
        upgrade(connection, SCHEMA_VERSION, broken)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    assert connection.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'extra'").fetchone() == (0,)
    upgrade(connection, SCHEMA_VERSION, (*MIGRATIONS, ("ALTER TABLE events ADD COLUMN author TEXT",)))
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)
    assert connection.execute("SELECT payload, author FROM events").fetchall() == [('{"n":1}', None)]
    connection.close()


def test_a_corrupted_file_says_so(path: Path) -> None:
    with Ledger(path) as ledger:
        for number in range(200):
            ledger.record("note", {"text": "x" * 200, "n": number})
    content = bytearray(path.read_bytes())
    for start in range(4096, len(content), 4096):
        content[start : start + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"corrupted|malformed"):
        with Ledger(path) as ledger:
            ledger.events()


def test_safeguards_that_were_taken_away_stop_the_writer(path: Path) -> None:
    Ledger(path).close()
    connection = sqlite3.connect(path)
    connection.execute("DROP TRIGGER events_are_not_deleted")
    connection.close()
    with pytest.raises(LedgerError, match=r"safeguards .*events_are_not_deleted is missing"):
        Ledger(path)
    with Ledger(path, read_only=True) as reader:
        assert reader.integrity() == ["schema: events_are_not_deleted is missing"]


def test_one_writer_any_number_of_readers(ledger: Ledger, path: Path) -> None:
    ledger.record("note", {"n": 1})
    with pytest.raises(LedgerError, match="already open for writing in this process"):
        Ledger(path)
    second = python("import sys; from evolution.ledger import Ledger; Ledger(sys.argv[1])", str(path))
    assert second.returncode == 1
    assert f"being written by another process (pid {os.getpid()})" in second.stderr
    read = "import sys; from evolution.ledger import Ledger; print(Ledger(sys.argv[1], read_only=True).events())"
    third = python(read, str(path))
    assert "payload={'n': 1}" in third.stdout, third.stderr
    with Ledger(path, read_only=True) as reader:
        ledger.record("note", {"n": 2})
        assert [event.payload["n"] for event in reader.events()] == [1, 2]
        with pytest.raises(LedgerError, match="reading only"):
            reader.record("note", {})
    ledger.close()
    with Ledger(path) as again:
        assert again.last_seq() == 2


def test_an_orphan_does_not_keep_the_ledger(path: Path) -> None:
    """A forked worker that outlives its parent must not lock the next start out."""
    source = (
        "import os, sys, time\nfrom evolution.ledger import Ledger\nledger = Ledger(sys.argv[1])\n"
        "ledger.record('note', {})\nchild = os.fork()\n"
        "if child == 0:\n    os.close(1); os.close(2); time.sleep(20); os._exit(0)\n"
        "print(child, flush=True)\nos._exit(9)\n"
    )
    first = python(source, str(path))
    orphan = int(first.stdout)
    try:
        os.kill(orphan, 0)
        with Ledger(path) as ledger:
            assert ledger.record("note", {}) == 2
    finally:
        os.kill(orphan, 9)


def test_a_forked_process_is_told_to_open_its_own(ledger: Ledger) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ledger.record("note", {"from": "child"})
        except LedgerError as error:
            os.write(writing, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert b"a forked process opens its own reader" in pipe.read()
    assert ledger.record("note", {"from": "parent"}) == 1


def test_a_closed_ledger_is_read_where_nothing_can_be_written(path: Path, tmp_path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.record("note", {"n": 1})
    path.with_name(path.name + ".lock").unlink()
    os.chmod(path, 0o444)
    os.chmod(tmp_path, 0o555)
    source = (
        "import os, sys\nfrom evolution.ledger import Ledger, LedgerError\n"
        "if os.getuid() == 0:\n    os.setgid(65534); os.setuid(65534)\n"
        "with Ledger(sys.argv[1], read_only=True) as ledger:\n    print(len(ledger.events()))\n"
        "try:\n    Ledger(sys.argv[1])\nexcept LedgerError as error:\n    print(error)\n"
    )
    folders = [folder for folder in tmp_path.parents if folder.owner() == path.owner() and len(folder.parts) > 2]
    modes = [(folder, folder.stat().st_mode) for folder in folders]
    try:
        for folder in folders:
            os.chmod(folder, 0o755)
        found = python(source, str(path))
    finally:
        os.chmod(tmp_path, 0o755)
        for folder, mode in modes:
            os.chmod(folder, mode)
    assert found.stdout.startswith("1\n"), found.stderr
    assert "cannot be opened for locking" in found.stdout


def _fill(path: str, limit: int) -> None:
    """Write until the file may not grow; print how many events were acknowledged and what was said."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    ledger = Ledger(path)
    count = 0
    try:
        while True:
            ledger.record("note", {"n": count, "text": "x" * 2_000})
            count += 1
    except LedgerError as error:
        print(count, error, sep="\n")
    print(len(ledger.events()))


def test_a_full_disk_costs_one_event(path: Path) -> None:
    source = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_ledger_database as t; "
        "t._fill(sys.argv[1], 300_000)"
    )
    found = python(source, str(path))
    acknowledged, message, still_there = found.stdout.strip().split("\n")
    assert int(acknowledged) > 10
    assert "is the disk full?" in message
    assert still_there == acknowledged, "the writer itself goes on reading"
    with Ledger(path) as ledger:
        assert [event.payload["n"] for event in ledger.events()] == list(range(int(acknowledged)))
        assert ledger.integrity() == []
        assert ledger.record("note", {"n": "after"}) == int(acknowledged) + 1


@pytest.mark.slow
def test_a_hundred_thousand_runs(path: Path, make_spec: Callable[..., Json], done: Json) -> None:
    import time

    with Ledger(path) as ledger:
        for start in range(0, 100_000, 5_000):
            ledger.record_many(
                ("run", {"spec": make_spec(str(n % 500), n // 500), "outcome": done}, f"k{n}")
                for n in range(start, start + 5_000)
            )
        start_time = time.perf_counter()
        for number in range(200):
            assert ledger.outcome(f"k{number * 499}") == done
            assert len(ledger.runs(candidate=str(number))) == 200
            ledger.commit_run(f"new{number}", make_spec("new", number), done)
        assert (time.perf_counter() - start_time) / 200 < 0.1
        assert ledger.integrity() == []

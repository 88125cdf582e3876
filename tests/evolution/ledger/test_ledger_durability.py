"""`kill -9` at any moment: everything that was acknowledged is there afterwards."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evolution.ledger import Ledger

ROOT = Path(__file__).parents[3]

WRITER = """
import sys
from evolution.ledger import Ledger
ledger = Ledger(sys.argv[1])
number = ledger.last_seq()
print("ready", flush=True)
while True:
    seqs = ledger.record_many(("note", {"n": number + i, "text": "x" * (number * 37 % 5000)}, None) for i in range(2))
    number += 2
    print(seqs[-1], flush=True)
"""


def _killed_writer(path: Path, seconds: float) -> int:
    """Start a writer, kill it after `seconds`, return the last event it acknowledged."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(seconds)
        writer.send_signal(signal.SIGKILL)
        lines = [line for line in writer.stdout.read().split("\n")[:-1] if line]
    return int(lines[-1]) if lines else 0


def _kill_and_check(path: Path, times: int, seed: int) -> None:
    rng = random.Random(seed)
    acknowledged = 0
    for _ in range(times):
        acknowledged = max(acknowledged, _killed_writer(path, rng.uniform(0.0, 0.4)))
        with Ledger(path) as ledger:
            events = ledger.events()
            assert len(events) >= acknowledged
            assert len(events) % 2 == 0, "a transaction is there whole or not at all"
            assert [event.payload["n"] for event in events] == list(range(len(events)))
            assert ledger.integrity() == []
    assert acknowledged > 0


def test_kill_minus_nine(path: Path) -> None:
    _kill_and_check(path, times=4, seed=1)


@pytest.mark.slow
def test_kill_minus_nine_fifty_times(path: Path) -> None:
    _kill_and_check(path, times=50, seed=2)


def test_a_reader_is_right_after_a_kill(path: Path) -> None:
    """The write-ahead log that the kill left behind is read too."""
    acknowledged = _killed_writer(path, 0.3)
    assert path.with_name(path.name + "-wal").exists()
    with Ledger(path, read_only=True) as reader:
        assert reader.last_seq() >= acknowledged > 0
        assert json.dumps(reader.events()[0].payload) == '{"n": 0, "text": ""}'

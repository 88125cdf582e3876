"""Checkpoints are whole or are not used."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from training.checkpoint import (
    LATEST,
    CheckpointError,
    CheckpointStore,
    CheckpointWarning,
    read_checkpoint,
    write_atomically,
)


def _payload(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "weights": torch.full((1000,), float(step)),
        "curve": [(1, 2.0, 3.0)],
        "name": "x",
        "none": None,
    }


def test_round_trip_and_latest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "a" / "b")
    assert store.load_newest() is None
    store.save(5, _payload(5))
    path = store.save(20, _payload(20))
    for found in (store.load_newest(), read_checkpoint(path), read_checkpoint(path.with_name(LATEST))):
        assert found is not None
        assert found["step"] == 20
        assert torch.equal(found["weights"], torch.full((1000,), 20.0))
        assert found["curve"] == [(1, 2.0, 3.0)]


def test_only_the_newest_are_kept_or_all(tmp_path: Path) -> None:
    some, every = CheckpointStore(tmp_path / "some", keep=3), CheckpointStore(tmp_path / "every", keep=None)
    for step in (1, 2, 30, 100, 1000):
        some.save(step, _payload(step))
        every.save(step, _payload(step))
    assert [path.name for path in some.paths()] == ["step_00000030.ckpt", "step_00000100.ckpt", "step_00001000.ckpt"]
    assert len(every.paths()) == 5
    with pytest.raises(ValueError, match="keep=1"):
        CheckpointStore(tmp_path, keep=1)


def _damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        del content[len(content) // 2 :]
    elif how == "one bit":
        content[len(content) // 2] ^= 1
    elif how == "empty":
        content.clear()
    elif how == "head":
        content[3] ^= 1
    else:
        content += b"rubbish"
    path.unlink()  # latest.ckpt may be the same file
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "one bit", "empty", "head", "longer"])
def test_a_damaged_file_is_told_and_the_previous_one_used(tmp_path: Path, how: str) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, _payload(1))
    newest = store.save(2, _payload(2))
    _damage(newest, how)

    with pytest.raises(CheckpointError, match=r"step_00000002\.ckpt"):
        read_checkpoint(newest)
    with pytest.warns(CheckpointWarning) as told:
        found = store.load_newest()
    assert found is not None
    assert found["step"] == 1
    assert len(told) == 1
    assert str(told[0].message).endswith("; trying the one before it, step_00000001.ckpt")
    assert newest.with_name(newest.name + ".corrupt").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.load_newest() is not None  # told once


def test_when_all_are_damaged_the_run_starts_afresh(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step in (1, 2):
        _damage(store.save(step, _payload(step)), "truncated")
    with pytest.warns(CheckpointWarning) as told:
        assert store.load_newest() is None
    assert [str(warning.message).rpartition("; ")[2] for warning in told] == [
        "trying the one before it, step_00000001.ckpt",
        "starting afresh",
    ]
    assert store.paths() == []


class _FullError(Exception):
    pass


class _Unwritable:
    def __reduce__(self) -> Any:
        raise _FullError


def test_a_save_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, _payload(1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(_FullError):
        store.save(1, {"bad": _Unwritable()})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "occupied"
    target.mkdir()
    (target / "file").write_text("x")
    with pytest.raises(OSError):
        write_atomically(target, b"new")  # a file cannot replace a directory
    assert [path.name for path in tmp_path.iterdir()] == ["occupied"]


def test_leftovers_of_a_killed_process_are_cleared(tmp_path: Path) -> None:
    leftover = tmp_path / ".step_00000004.ckpt.123.tmp"
    leftover.write_bytes(b"half")
    assert CheckpointStore(tmp_path).load_newest() is None
    assert not leftover.exists()


_WRITER = """
import sys, torch
from training.checkpoint import CheckpointStore
store = CheckpointStore(sys.argv[1])
weights = torch.zeros(500_000)
step = 0
while True:
    step += 1
    store.save(step, {"step": step, "weights": weights + step})
    print(step, flush=True)
"""


def test_killed_while_writing_the_newest_is_whole(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for _ in range(5):
        writer.stdout.readline()
    time.sleep(0.003)
    os.kill(writer.pid, signal.SIGKILL)
    written = [int(line) for line in writer.stdout] or [5]
    writer.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = CheckpointStore(tmp_path).load_newest()
    assert found is not None
    assert found["step"] >= written[-1]
    assert torch.equal(found["weights"], torch.full((500_000,), float(found["step"])))


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    import hashlib
    import io

    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "ran"),))

    buffer = io.BytesIO()
    torch.save({"evil": Evil()}, buffer)
    body = buffer.getvalue()
    path = tmp_path / "step_00000001.ckpt"
    path.write_bytes(b"evoscale-checkpoint-1 " + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    with pytest.raises(CheckpointError, match="cannot be decoded"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_is_told_in_one_sentence_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, _payload(1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("training.checkpoint.os.fsync", full)
    with pytest.raises(
        OSError, match=r"could not be written \(No space left on device\); what was there before is kept"
    ):
        store.save(2, _payload(2))
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert store.load_newest() is not None

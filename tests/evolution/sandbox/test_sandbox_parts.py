"""The sandbox's parts on their own: frames, endings, environment, visible paths, usage, leftovers."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from evolution.sandbox import Exited, Killed, OutOfMemory, Raised, Returned, TimedOut
from evolution.sandbox.environment import check_extra_environment, worker_environment
from evolution.sandbox.leftovers import make_harmless
from evolution.sandbox.protocol import pack_report, read_report, receive_frame, send_frame
from evolution.sandbox.usage import deleted_bytes, descendants, folder_bytes, measure_usage, own_memory
from evolution.sandbox.visible_paths import visible_paths


def test_a_frame_carries_its_message_and_descriptors():
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    message = {"text": "x" * 3_000_000, "nested": [1, {"a": None}]}
    with ours, theirs:
        sender = threading.Thread(target=send_frame, args=(ours, message, [write]))
        sender.start()
        received, descriptors = receive_frame(theirs)
        sender.join()
        assert received == message
        os.write(descriptors[0], b"through")
        assert os.read(read, 10) == b"through"
        ours.close()
        with pytest.raises(EOFError):
            receive_frame(theirs)
    for descriptor in (read, write, *descriptors):
        os.close(descriptor)


@pytest.mark.parametrize("cut", [0, 3, 10, -1])
def test_a_report_that_is_cut_is_none(cut):
    whole = pack_report({"status": 0}, b"result")
    read, write = os.pipe()
    os.write(write, whole[:cut])
    os.close(write)
    assert read_report(read, 5) is None
    os.close(read)


def test_a_report_is_read_to_its_end():
    read, write = os.pipe()
    os.write(write, pack_report({"status": 0}, b"result"))
    with pytest.raises(TimeoutError):
        read_report(os.dup(os.pipe()[0]), 0.01)
    os.close(write)
    head, result = read_report(read, 5)
    assert head["status"] == 0
    assert result == b"result"
    os.close(read)


@pytest.mark.parametrize(
    ("ending", "says"),
    [
        (Returned(1, seconds=1.25), "returned after 1.25 s"),
        (Raised("ValueError", "Traceback\nValueError: no"), "raised ValueError: ValueError: no"),
        (Raised("ValueError", ""), "raised ValueError"),
        (Exited(3), "left the process with exit status 3"),
        (Killed(11), "killed by SIGSEGV"),
        (Killed(9, "cancelled"), "killed by SIGKILL: cancelled"),
        (Killed(250), "killed by signal 250"),
        (TimedOut(2.5), "passed the limit of 2.5 s of wall-clock time"),
        (TimedOut(2.5, "cpu"), "passed the limit of 2.5 s of CPU time"),
        (OutOfMemory(512 << 20), "passed the memory limit of 512 MiB"),
    ],
)
def test_an_ending_says_what_happened(ending, says):
    assert str(ending) == says


def test_the_environment_is_an_allow_list():
    supervisor = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "SSH_AUTH_SOCK": "/x",
        "GITHUB_TOKEN": "x",
        "LD_PRELOAD": "/evil.so",
    }
    environment = worker_environment(supervisor, ["/usr", "", "/no/such/folder"])
    assert environment["PATH"] == "/bin"
    assert environment["HOME"] == "/tmp"
    assert environment["PYTHONPATH"] == "/usr"
    assert not {"SSH_AUTH_SOCK", "GITHUB_TOKEN", "LD_PRELOAD"} & set(environment)


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "hf_token", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "", "A=B"])
def test_extra_variables_that_look_like_secrets_are_refused(name):
    with pytest.raises(ValueError):
        check_extra_environment({name: "x"})


def test_of_an_import_path_only_importable_things_are_visible(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "module.py").touch()
    for name in ("runs", ".git"):
        (tmp_path / name).mkdir()
    (tmp_path / "ledger.sqlite").touch()
    found = visible_paths([str(tmp_path), "/no/such/folder"])
    assert {Path(path).name for path in found if path.startswith(str(tmp_path))} == {"package", "module.py"}
    assert "/" not in found
    assert str(Path.home()) not in found
    assert any(Path(sys.base_prefix) in Path(path).parents for path in found) or sys.base_prefix == "/usr"


def test_own_memory_grows_with_what_is_allocated():
    before, threads = own_memory(os.getpid())
    kept = bytearray(b"x") * (32 << 20)
    after, _ = own_memory(os.getpid())
    assert threads >= 1
    assert len(kept) * 0.9 < after - before < len(kept) * 1.5
    usage = measure_usage([os.getpid()], before)
    assert usage.memory_bytes >= len(kept) * 0.9
    assert usage.cpu_seconds > 0
    assert own_memory(2**22 + 1) == (0, 0)  # no such process


def test_descendants_are_found_through_generations():
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            os.write(write, b"%d" % os.getpid())
            os.read(os.pipe()[0], 1)
        os.wait()
        os._exit(0)
    grandchild = int(os.read(read, 20))
    assert {child, grandchild} <= set(descendants(os.getpid()))
    for pid in (grandchild, child):
        os.kill(pid, 9)
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)


def test_folder_bytes_counts_files_once_and_follows_no_link(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "loop").symlink_to(tmp_path)
    found = folder_bytes(str(tmp_path), 1 << 40)
    assert 100_000 <= found < 200_000
    assert folder_bytes(str(tmp_path), 1000) > 1000  # stops early, but is over


def test_deleted_files_that_are_open_count(tmp_path):
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(b"x" * 100_000)
        file.flush()
        os.fsync(file.fileno())
        device = tmp_path.stat().st_dev
        before = deleted_bytes([os.getpid()], device)
        path.unlink()
        assert deleted_bytes([os.getpid()], device) - before >= 100_000


def test_leftovers_are_made_harmless(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("kept")
    folder = tmp_path / "scratch"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "link").symlink_to(outside)
    (folder / "dangling").symlink_to("/no/such/file")
    (folder / "file").write_text("kept")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
    removed = make_harmless(str(folder))
    assert sorted(Path(path).name for path in removed) == ["dangling", "link", "socket"]
    assert outside.read_text() == "kept"
    assert (folder / "file").read_text() == "kept"

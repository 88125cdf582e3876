"""The sandbox as its callers see it: many calls at once, cancelling, closing, callers' mistakes, and its own end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from live_processes import alive_below, running_workers, wait_until

from evolution.sandbox import Killed, Limits, Raised, Returned, Sandbox, TimedOut

LIMITS = Limits(seconds=10, memory_bytes=256 << 20, file_bytes=16 << 20, processes=16)
HERE = Path(__file__).parent


def in_background(call, *arguments, **options):
    """A call in a thread of its own; (thread, list that will hold the result)."""
    results = []
    thread = threading.Thread(target=lambda: results.append(call(*arguments, **options)))
    thread.start()
    return thread, results


def test_several_threads_call_at_once(sandbox, nothing_left):
    with ThreadPoolExecutor(6) as pool:
        futures = [
            pool.submit(sandbox.call, "sandbox_targets:echo", {"n": n, "text": "é\u2028"}, limits=LIMITS)
            for n in range(24)
        ]
        results = [future.result() for future in futures]
    assert [result.value["n"] for result in results] == list(range(24))
    assert {result.value["text"] for result in results} == {"é\u2028"}


def test_a_hanging_call_does_not_hold_up_the_others(sandbox, nothing_left):
    thread, results = in_background(sandbox.call, "sandbox_targets:spin", None, limits=Limits(seconds=1.5))
    began = time.monotonic()
    for n in range(3):
        assert sandbox.call("sandbox_targets:echo", n, limits=LIMITS).value == n
    assert time.monotonic() - began < 1.4
    thread.join()
    assert isinstance(results[0], TimedOut)


def test_cancel_all_ends_every_call_in_flight(needs_namespaces):
    with Sandbox(preload=()) as sandbox:
        sandbox.warm_up()
        calls = [in_background(sandbox.call, "sandbox_targets:sleep", 60, limits=Limits(seconds=60)) for _ in range(3)]
        assert wait_until(lambda: len(running_workers()) >= 6)
        assert sandbox.cancel_all() == 3
        for thread, results in calls:
            thread.join(5)
            assert isinstance(results[0], Killed)
            assert results[0].reason == "cancelled"
        assert wait_until(lambda: running_workers() == [])
        assert sandbox.call("sandbox_targets:echo", 1, limits=LIMITS).value == 1
        assert sandbox.cancel_all() == 0


def test_close_ends_everything(needs_namespaces):
    before = {process.pid for process in alive_below(os.getpid())}
    sandbox = Sandbox(preload=())
    sandbox.warm_up()
    thread, results = in_background(sandbox.call, "sandbox_targets:spin", None, limits=Limits(seconds=60))
    assert wait_until(lambda: len(running_workers()) >= 2)
    sandbox.close()
    thread.join(5)
    assert isinstance(results[0], Killed)
    assert results[0].reason == "cancelled"
    assert {process.pid for process in alive_below(os.getpid())} == before
    sandbox.close()  # a second time is nothing
    with pytest.raises(ValueError, match="closed"):
        sandbox.call("sandbox_targets:echo", 1, limits=LIMITS)


def test_closing_while_the_warm_parent_still_starts(needs_namespaces):
    sandbox = Sandbox(preload=("asyncio", "unittest"))
    thread, results = in_background(sandbox.call, "sandbox_targets:echo", 1, limits=LIMITS)
    sandbox.close()
    thread.join(10)
    assert not thread.is_alive()
    assert not results or isinstance(results[0], (Killed, Returned))


@pytest.mark.parametrize("which", ["launcher", "warm parent"])
def test_the_death_of_the_warm_parent_is_survived(needs_namespaces, which):
    with Sandbox(preload=()) as sandbox:
        sandbox.warm_up()
        thread, results = in_background(sandbox.call, "sandbox_targets:sleep", 1, limits=LIMITS)
        assert wait_until(lambda: len(running_workers()) >= 2)
        workers = running_workers()
        keeper = next(process for process in workers if process.ppid() not in {other.pid for other in workers})
        warm_parent = keeper.parent()
        (warm_parent if which == "warm parent" else warm_parent.parent()).send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(workers, timeout=5)
        assert alive == []
        thread.join(10)
        assert isinstance(results[0], Returned), results  # it was started again
        assert sandbox.call("sandbox_targets:echo", 2, limits=LIMITS).value == 2


def test_a_killed_keeper_is_told_as_killed(needs_namespaces):
    with Sandbox(preload=()) as sandbox:
        sandbox.warm_up()
        thread, results = in_background(sandbox.call, "sandbox_targets:sleep", 60, limits=LIMITS)
        assert wait_until(lambda: len(running_workers()) >= 2)
        workers = running_workers()
        next(process for process in workers if process.ppid() not in {other.pid for other in workers}).kill()
        thread.join(5)
        assert isinstance(results[0], Killed)
        assert "kept the worker" in results[0].reason
        _, alive = psutil.wait_procs(workers, timeout=5)
        assert alive == []


@pytest.mark.slow
def test_a_warm_parent_that_no_longer_answers_is_replaced(needs_namespaces):
    with Sandbox(preload=()) as sandbox:
        sandbox.warm_up()
        (launcher,) = psutil.Process().children()[-1:]
        launcher.children()[0].send_signal(signal.SIGSTOP)
        assert isinstance(sandbox.call("sandbox_targets:echo", 1, limits=Limits(seconds=0.5)), TimedOut)
        assert sandbox.call("sandbox_targets:echo", 2, limits=LIMITS).value == 2


SUPERVISOR = textwrap.dedent(
    """
    import sys, threading, time
    sys.path.insert(0, sys.argv[1])
    from evolution.sandbox import Limits, Sandbox
    sandbox = Sandbox(preload=())
    sandbox.warm_up()
    limits = Limits(seconds=60, processes=16)
    for target in ("spin", "leave_sleepers"):
        call = lambda target=target: sandbox.call(f"sandbox_targets:{target}", None, limits=limits)
        threading.Thread(target=call).start()
    time.sleep(60)
    """
)


def test_nothing_outlives_a_killed_supervisor(needs_namespaces):
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(HERE)])
    try:
        assert wait_until(lambda: len(alive_below(supervisor.pid)) >= 9, 15)  # 2 + 2 keepers, 2 workers, 3 children
        family = alive_below(supervisor.pid)
    finally:
        supervisor.kill()
        supervisor.wait()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []


def test_ctrl_c_ends_the_call_it_interrupts(needs_namespaces):
    program = SUPERVISOR.replace("time.sleep(60)", "sandbox.call('sandbox_targets:spin', None, limits=limits)")
    program = program.replace('for target in ("spin", "leave_sleepers")', "for target in ()")
    program += "\nexcept_hook = None"
    program = program.replace(
        "sandbox.call('sandbox_targets:spin', None, limits=limits)",
        "print('calling', flush=True)\n"
        "try: sandbox.call('sandbox_targets:spin', None, limits=limits)\n"
        "except KeyboardInterrupt: print('interrupted', flush=True); time.sleep(20)",
    )
    supervisor = subprocess.Popen([sys.executable, "-c", program, str(HERE)], stdout=subprocess.PIPE, text=True)
    try:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "calling\n"
        assert wait_until(lambda: len(alive_below(supervisor.pid)) >= 4)
        supervisor.send_signal(signal.SIGINT)
        assert supervisor.stdout.readline() == "interrupted\n"
        assert wait_until(lambda: len(alive_below(supervisor.pid)) == 2)  # launcher and warm parent live on
    finally:
        supervisor.kill()
        supervisor.wait()
        supervisor.stdout.close()


@pytest.mark.parametrize("target", ["", "no_colon", "os:", ":run", "os:system()", "../x:run", "a.b:c.d", 3])
def test_a_malformed_target_is_an_error_of_the_caller(sandbox, target):
    with pytest.raises(ValueError, match=r"package\.module:function"):
        sandbox.call(target, None, limits=LIMITS)


@pytest.mark.parametrize("arguments", [float("nan"), {"x": float("inf")}, object(), {1, 2}, b"x"])
def test_arguments_that_are_not_json_are_an_error_of_the_caller(sandbox, arguments):
    with pytest.raises(ValueError, match="arguments"):
        sandbox.call("sandbox_targets:echo", arguments, limits=LIMITS)


def test_paths_that_cannot_be_given_are_an_error_of_the_caller(sandbox, tmp_path):
    file = tmp_path / "file"
    file.touch()
    for options in (
        {"scratch": tmp_path / "missing"},
        {"scratch": file},
        {"readable": [tmp_path / "missing"]},
        {"readable": [Path("/")]},
        {"scratch": Path("/tmp")},
        {"environment": {"HF_TOKEN": "x"}},
        {"environment": {"A=B": "x"}},
    ):
        with pytest.raises(ValueError):
            sandbox.call("sandbox_targets:echo", 1, limits=LIMITS, **options)


def test_a_module_that_cannot_be_preloaded_is_named(needs_namespaces):
    with Sandbox(preload=("json", "no_such_module_at_all")) as sandbox:
        greeting = sandbox.warm_up()
        assert list(greeting["failed"]) == ["no_such_module_at_all"]
        assert greeting["threads"] == 1
        loaded = sandbox.call("sandbox_targets:loaded_modules", ["json", "torch"], limits=LIMITS)
        assert loaded.value == {"json": True, "torch": False}


def test_large_arguments_and_results_pass(sandbox):
    text = "x" * (8 << 20)
    result = sandbox.call("sandbox_targets:echo", text, limits=LIMITS)
    assert isinstance(result, Returned), result
    assert result.value == text


def test_a_worker_that_cannot_be_set_up_is_no_fault_of_the_target(sandbox, tmp_path, monkeypatch):
    # The folder is there when the call is checked and gone when the keeper mounts it.
    monkeypatch.setattr("evolution.sandbox.supervisor._checked_path", lambda path, folder: str(path))
    result = sandbox.call("sandbox_targets:echo", 1, limits=LIMITS, readable=[tmp_path / "gone"])
    assert isinstance(result, Raised)
    assert result.error == "SandboxError"
    assert "gone" in result.detail


def test_a_call_does_not_wait_on_another_that_waits_for_the_warm_parent(needs_namespaces):
    with Sandbox(preload=("torch",)) as starting:
        first = threading.Thread(target=starting.warm_up)
        began = time.monotonic()
        first.start()
        looks = []
        while first.is_alive():
            looked = time.monotonic()
            assert starting._warm_parent() is starting._zygote
            looks.append(time.monotonic() - looked)
            time.sleep(0.01)
        assert max(looks) < (time.monotonic() - began) / 2

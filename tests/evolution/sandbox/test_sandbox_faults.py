"""Every way a candidate can misbehave: the right ending, in time, and no process left."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from evolution.sandbox import Exited, Killed, Limits, OutOfMemory, Raised, Returned, Sandbox, TimedOut

MIB = 1 << 20
LIMITS = Limits(seconds=8, memory_bytes=256 * MIB, file_bytes=16 * MIB, processes=16)
SHORT = Limits(seconds=0.4, memory_bytes=256 * MIB, file_bytes=16 * MIB, processes=16)
CPU = Limits(seconds=8, memory_bytes=256 * MIB, cpu_seconds=0.4, processes=16)

# name of the target, its arguments, limits, ending, what the ending says
FAULTS = [
    ("leave", 3, LIMITS, Exited, {"code": 3}),
    ("leave", None, LIMITS, Exited, {"code": 0}),
    ("leave", "a text", LIMITS, Exited, {"code": 1}),
    ("leave", -1, LIMITS, Exited, {"code": 255}),
    ("leave_at_once", 7, LIMITS, Exited, {"code": 7}),
    ("leave_at_once", 0, LIMITS, Exited, {"code": 0}),
    ("raise_named", "ValueError", LIMITS, Raised, {"error": "ValueError"}),
    ("raise_named", "KeyboardInterrupt", LIMITS, Raised, {"error": "KeyboardInterrupt"}),
    ("raise_named", "GeneratorExit", LIMITS, Raised, {"error": "GeneratorExit"}),
    ("raise_unprintable", None, LIMITS, Raised, {"error": "UnprintableError"}),
    ("signal_self", int(signal.SIGINT), LIMITS, Raised, {"error": "KeyboardInterrupt"}),
    ("signal_self", int(signal.SIGKILL), LIMITS, Killed, {"signal": 9}),
    ("signal_self", int(signal.SIGTERM), LIMITS, Killed, {"signal": 15}),
    ("segfault", None, LIMITS, Killed, {"signal": 11}),
    ("abort", None, LIMITS, Killed, {"signal": 6}),
    ("sleep", 60, SHORT, TimedOut, {"limit_seconds": 0.4, "clock": "wall"}),
    ("spin", None, SHORT, TimedOut, {"clock": "wall"}),
    ("sleep_in_c", None, SHORT, TimedOut, {"clock": "wall"}),
    ("sleep_in_c_holding_the_lock", None, SHORT, TimedOut, {"clock": "wall"}),
    ("multiply_for_ever", 200, SHORT, TimedOut, {"clock": "wall"}),
    ("stop_self", None, SHORT, TimedOut, {"clock": "wall"}),
    ("close_everything", None, SHORT, TimedOut, {"clock": "wall"}),
    ("spin", None, CPU, TimedOut, {"limit_seconds": 0.4, "clock": "cpu"}),
    ("spin_ignoring_signals", None, CPU, TimedOut, {"clock": "cpu"}),
    ("spin_in_children", 3, CPU, TimedOut, {"clock": "cpu"}),
    ("eat_memory", None, LIMITS, OutOfMemory, {"limit_bytes": 256 * MIB}),
    ("eat_memory_in_mappings", None, LIMITS, OutOfMemory, {"limit_bytes": 256 * MIB}),
    ("eat_memory_in_children", None, LIMITS, OutOfMemory, {"limit_bytes": 256 * MIB}),
    ("bomb_with_forks", None, LIMITS, Killed, {"signal": 9, "reason": "more than 16 processes and threads"}),
    ("start_small_threads", 50, LIMITS, Killed, {"signal": 9, "reason": "more than 16 processes and threads"}),
    ("start_a_thread_and_return", None, LIMITS, Returned, {"value": "returned"}),
    ("spawn_a_program", None, LIMITS, Returned, {"value": "spawned"}),
    ("recurse", 0, LIMITS, Raised, {"error": "RecursionError"}),
    ("write_one_large_file", 32 * MIB, LIMITS, Raised, {"error": "OSError"}),
    ("fill_disk", None, LIMITS, Returned, {"value": 16 * MIB}),
    ("close_the_result", 1, LIMITS, Exited, {"code": 70}),
    ("replace_json", 1, LIMITS, Raised, {"error": "InvalidResult"}),
    ("no_such_function", None, LIMITS, Raised, {"error": "AttributeError"}),
]


@pytest.mark.parametrize(
    ("name", "arguments", "limits", "ending", "says"),
    FAULTS,
    ids=[f"{row[0]}-{row[1]}-{row[3].__name__}" for row in FAULTS],
)
@pytest.mark.usefixtures("nothing_left")
def test_a_fault_has_its_ending(sandbox, name, arguments, limits, ending, says):
    began = time.monotonic()
    result = sandbox.call(f"sandbox_targets:{name}", arguments, limits=limits)
    took = time.monotonic() - began
    assert type(result) is ending, (result, result.output)
    assert {key: getattr(result, key) for key in says} == says
    assert took < limits.seconds + 4
    assert 0 < result.seconds <= took
    assert result.cpu_seconds > 0
    after = sandbox.call("sandbox_targets:echo", "fine", limits=LIMITS)
    assert isinstance(after, Returned)
    assert after.value == "fine"


@pytest.mark.usefixtures("nothing_left")
def test_the_last_words_of_a_crash_are_kept(sandbox):
    result = sandbox.call("sandbox_targets:abort", None, limits=LIMITS)
    assert "last words" in result.output
    assert "in abort" in result.output  # where it died


@pytest.mark.usefixtures("nothing_left")
def test_a_traceback_names_the_fault_and_not_the_harness(sandbox):
    result = sandbox.call("sandbox_targets:raise_named", "ValueError", limits=LIMITS)
    assert "on purpose" in result.detail
    assert "in raise_named" in result.detail
    assert "evolution/sandbox/worker.py" not in result.detail


@pytest.mark.usefixtures("nothing_left")
def test_printing_a_gigabyte_changes_nothing(sandbox):
    result = sandbox.call("sandbox_targets:print_much", 1 << 30, limits=Limits(seconds=30, memory_bytes=256 * MIB))
    assert isinstance(result, Returned)
    assert result.value == "printed"
    assert len(result.output) < 32 << 10
    assert result.output.startswith("xxx")


def test_children_do_not_outlive_their_worker(sandbox, tmp_path, nothing_left):
    result = sandbox.call("sandbox_targets:leave_children_behind", str(tmp_path), limits=LIMITS, scratch=tmp_path)
    assert isinstance(result, Returned)
    time.sleep(1.3)
    assert list(tmp_path.iterdir()) == []


def test_shared_pages_are_counted_once(sandbox, nothing_left):
    result = sandbox.call("sandbox_targets:share_memory_with_children", 150 * MIB, limits=LIMITS)
    assert isinstance(result, Returned), result


def test_memory_errors_that_are_swallowed_give_no_more_memory(sandbox, nothing_left):
    result = sandbox.call("sandbox_targets:swallow_memory_errors", None, limits=LIMITS)
    assert isinstance(result, (Returned, OutOfMemory)), result
    if isinstance(result, Returned):
        assert result.value <= 256 * MIB


@pytest.mark.parametrize("name", ["fill_disk", "fill_disk_with_a_deleted_file"])
def test_a_persistent_scratch_folder_has_a_quota(sandbox, tmp_path, name, nothing_left):
    kept = tmp_path / "kept"
    kept.write_bytes(b"x" * (20 * MIB))  # more than the quota: only growth counts
    assert isinstance(sandbox.call("sandbox_targets:echo", 1, limits=LIMITS, scratch=tmp_path), Returned)
    result = sandbox.call(f"sandbox_targets:{name}", str(tmp_path), limits=LIMITS, scratch=tmp_path)
    assert isinstance(result, Killed), result
    assert result.reason == "wrote more than 16,777,216 bytes to its scratch folder"
    assert kept.stat().st_size == 20 * MIB


@pytest.mark.parametrize("kind", ["nan", "infinity", "object", "bytes", "set", "huge", "surrogate", "deep"])
def test_a_result_that_is_not_finite_json_is_invalid(sandbox, kind, nothing_left):
    result = sandbox.call("sandbox_targets:not_json", kind, limits=LIMITS)
    assert isinstance(result, Raised), result
    assert result.error == "InvalidResult"


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "{",
        "[]",
        "null",
        '{"returned": NaN}',
        '{"returned": -Infinity}',
        '{"returned": 1e999}',
        '{"returned": "\\ud800"}',
        '{"returned": 1}',
        '{"returned": {"status": "completed", "val_loss": 0.001}}',
        '{"returned": 1, "more": 2}',
        '{"returned": 1}{"returned": 2}',
        '{"setup": "not my fault"}',
        '{"raised": "SandboxError", "detail": "not my fault"}',
        '{"returned": ' + "9" * 6000 + "}",
        '{"returned": ' + "[" * 9000,
    ],
)
def test_a_forged_answer_never_hurts_the_supervisor(sandbox, raw, nothing_left):
    result = sandbox.call("sandbox_targets:forge", raw, limits=LIMITS)
    if raw:
        assert isinstance(result, Raised), result
        assert result.error == "InvalidResult"
    else:
        assert result.status == "exited"


def test_a_forged_answer_before_the_real_one_is_no_answer(sandbox, nothing_left):
    result = sandbox.call("sandbox_targets:forge_and_return", '{"returned": 1}', limits=LIMITS)
    assert isinstance(result, Raised)
    assert result.error == "InvalidResult"
    assert "not by the harness" in result.detail


def test_no_target_passes_its_failure_off_as_the_sandboxs(sandbox, nothing_left):
    result = sandbox.call("sandbox_targets:forge_and_leave", '{"setup": "not my fault"}', limits=LIMITS)
    assert isinstance(result, Exited)
    assert result.code == 70


def test_a_forged_answer_without_end_is_cut(sandbox, nothing_left):
    result = sandbox.call("sandbox_targets:forge_by_size", 40 * MIB, limits=LIMITS)
    assert isinstance(result, Raised)
    assert result.error == "InvalidResult"


def test_forged_fields_are_texts(sandbox, nothing_left):
    raw = '{"raised": {"a": 1}, "detail": null, "memory": 1}'
    result = sandbox.call("sandbox_targets:forge", raw, limits=LIMITS)
    assert isinstance(result, Raised)
    assert isinstance(result.error, str)
    assert isinstance(result.detail, str)


def test_a_target_without_a_module_is_its_own_fault(sandbox: Sandbox, tmp_path: Path, nothing_left):
    result = sandbox.call("no_such_module_at_all:run", None, limits=LIMITS)
    assert isinstance(result, Raised)
    assert result.error == "ModuleNotFoundError"

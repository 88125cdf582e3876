"""The worker: the process that the untrusted code runs in, from its birth to its result."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import math
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
from typing import Any, NoReturn

from . import system_calls as linux
from .privileges import drop_privileges
from .protocol import MAX_RESULT_BYTES, SETTLED
from .usage import own_memory

_RESULT = 3
_MOST_FILES_OPEN = 1024
_LAST_WORDS_BYTES = 64 << 20
_DETAIL_CHARACTERS = 8000
_ALLOCATION_FAILURES = ("can't allocate memory", "not enough memory", "out of memory", "std::bad_alloc")


def run_worker(
    call: dict[str, Any], *, result: int, output: int, folder: str, private: str, gpu: bool, seal: bytes
) -> NoReturn:
    """Become the worker of one call, run its target, write one JSON object to `result` and leave.

    Args:
        call: target ("package.module:function"), arguments (JSON text), limits, environment.
        result: descriptor that only this process holds for writing.
        output: descriptor that takes stdout and stderr.
        folder: working folder.
        private: folder that dies with the worker: its home and its place for temporary files.
        gpu: GPU devices are visible.
        seal: what the harness writes before its answer; what a target writes itself does not begin with it.
    """
    code = 70
    try:
        try:
            _settle(call, result, output, folder, private)
            _limit(call["limits"], gpu=gpu)
            drop_privileges(allow_memory_files=gpu)
        except BaseException as error:
            _answer({"setup": f"{type(error).__name__}: {error}"}, b"")
        else:
            os.write(_RESULT, SETTLED)
            code = _run(call, seal)
    finally:
        os._exit(code)


def _settle(call: dict[str, Any], result: int, output: int, folder: str, private: str) -> None:
    """Session, descriptors (0 to 3 and no others), signals, environment, working folder."""
    os.setsid()
    for which in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(which, signal.default_int_handler if which == signal.SIGINT else signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    keep = os.dup2(result, max(result, output, nothing, 16) + 1)
    os.dup2(nothing, 0, inheritable=True)
    os.dup2(output, 1, inheritable=True)
    os.dup2(output, 2, inheritable=True)
    os.dup2(keep, _RESULT, inheritable=False)
    os.closerange(_RESULT + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    sys.stdin = os.fdopen(0, "r", encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    faulthandler.enable(file=2, all_threads=False)
    os.umask(0o022)
    os.chdir(folder)
    os.environ.update({"HOME": private, "TMPDIR": private, **call["environment"]})
    tempfile.tempdir = None
    random.seed(0)  # Python seeds it anew at every fork
    linux.control_process(linux.PR_SET_DUMPABLE, 1)


def _limit(limits: dict[str, Any], *, gpu: bool) -> None:
    def lower(which: int, soft: int, hard: int | None = None) -> None:
        allowed = resource.getrlimit(which)[1]
        most = soft if hard is None else hard
        most = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
        resource.setrlimit(which, (min(soft, most), most))

    lower(resource.RLIMIT_CORE, 1)  # 0 would still feed a core to a piped handler; 1 is the kernel's "never"
    lower(resource.RLIMIT_FSIZE, limits["file_bytes"])
    lower(resource.RLIMIT_NOFILE, _MOST_FILES_OPEN)
    lower(resource.RLIMIT_MSGQUEUE, 0)
    lower(resource.RLIMIT_NICE, 0)
    lower(resource.RLIMIT_RTPRIO, 0)
    if limits["cpu_seconds"] is not None:
        seconds = math.ceil(limits["cpu_seconds"])
        lower(resource.RLIMIT_CPU, seconds, seconds + 1)
    if not gpu:  # a GPU driver maps far more than it uses; there the keeper's measurement is the limit
        most = _mapped_data() + limits["memory_bytes"]
        lower(resource.RLIMIT_DATA, most, most + _LAST_WORDS_BYTES)


def _mapped_data() -> int:
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"VmData"):
                return int(line.split()[1]) << 10
    return own_memory("self")[0]


def _run(call: dict[str, Any], seal: bytes) -> int:
    """Run the target and answer; the exit status to leave with."""
    try:
        module, _, function = call["target"].partition(":")
        target = getattr(importlib.import_module(module), function)
        value = target(json.loads(call["arguments"]))
    except SystemExit as leave:
        _flush()
        return _exit_status(leave)
    except BaseException as error:
        _flush()
        with contextlib.suppress(Exception):  # room for the last words of a worker that ate its memory
            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        _answer({"raised": _name(error), "detail": _detail(error), "memory": _is_out_of_memory(error)}, seal)
        return 0
    _flush()
    try:
        _answer({"returned": value}, seal)
    except BaseException as error:
        detail = f"The target returned something that is not finite JSON of bounded size: {_name(error)}: {error}"
        _answer({"raised": "InvalidResult", "detail": detail[:_DETAIL_CHARACTERS]}, seal)
    return 0


def _answer(message: dict[str, Any], seal: bytes) -> None:
    data = seal + json.dumps(message, allow_nan=False).encode()
    if len(data) > MAX_RESULT_BYTES:
        raise ValueError(f"{len(data):,} bytes, at most {MAX_RESULT_BYTES:,} are allowed")
    view = memoryview(data)
    while view:
        view = view[os.write(_RESULT, view) :]


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()


def _exit_status(leave: SystemExit) -> int:
    """The status that the interpreter would leave with."""
    if leave.code is None:
        return 0
    if isinstance(leave.code, int):
        return leave.code & 0xFF
    with contextlib.suppress(BaseException):
        os.write(2, str(leave.code)[:_DETAIL_CHARACTERS].encode(errors="replace"))
    return 1


def _name(error: BaseException) -> str:
    return str(type.__getattribute__(type(error), "__name__"))[:200]


def _detail(error: BaseException) -> str:
    """Its traceback, without this module's own frame if there are others."""
    try:
        trace = error.__traceback__
        trace = trace.tb_next if trace and trace.tb_next else trace
        return "".join(traceback.format_exception(error.with_traceback(trace), limit=-12))[-_DETAIL_CHARACTERS:]
    except BaseException:
        return f"{_name(error)} (its message could not be shown)"


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or _name(error) == "OutOfMemoryError":
        return True
    with contextlib.suppress(BaseException):
        return isinstance(error, RuntimeError) and any(words in str(error) for words in _ALLOCATION_FAILURES)
    return False

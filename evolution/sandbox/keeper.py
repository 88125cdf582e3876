"""The keeper: init of one worker's namespaces. It builds them, watches the worker, kills it, and reports.

It is a fork of the warm parent that never runs untrusted code. The worker cannot reach it: init takes no signal from
inside its pid namespace, and the privileges it keeps forbid tracing it. It leaves only when the worker and every
descendant are dead and reaped; if it is killed itself, the kernel kills them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import secrets
import select
import shutil
import signal
import socket
import tempfile
import time
from typing import Any, NoReturn

from . import system_calls as linux
from .file_system import Bind, build_file_system
from .memory_watch import MemoryWatch
from .namespaces import enter_keeper_namespaces
from .protocol import MAX_OUTPUT_BYTES, MAX_RESULT_BYTES, SETTLED, pack_report
from .usage import (
    all_processes,
    deleted_bytes,
    descendants,
    folder_bytes,
    measure_usage,
    own_memory,
)
from .worker import run_worker

_TICK = 0.025
_FOLDER_TICK = 0.25
_CHUNK = 1 << 20
_CHUNKS_A_TICK = 64
_HEAD_BYTES = 2 << 10
_PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031


def run_keeper(call: dict[str, Any], *, report: int, confined: bool, devices: list[str], gpu: bool) -> NoReturn:
    """Run one call to its end in this process, write the report to `report` and leave.

    Args:
        call: target, arguments, limits, environment, readable (paths), scratch (path or None).
        report: write end of the supervisor's pipe.
        confined: this process is init of a pid namespace and may make the other namespaces.
        devices: device files to show.
        gpu: some of them are GPUs.
    """
    try:
        keeper = _Keeper(call, confined=confined, devices=devices, gpu=gpu)
        data = keeper.run(report)
    except BaseException as error:
        data = pack_report({"setup": f"{type(error).__name__}: {error}"}, b"")
    with contextlib.suppress(OSError):
        view = memoryview(data)
        while view:
            view = view[os.write(report, view) :]
    os._exit(0)


class _Keeper:
    def __init__(self, call: dict[str, Any], *, confined: bool, devices: list[str], gpu: bool) -> None:
        self.call = call
        self.limits = call["limits"]
        self.confined = confined
        self.devices = devices
        self.gpu = gpu
        self.parent = os.getppid()
        self.scratch = call["scratch"] or ""
        self.private = "/tmp"
        self.folder_before = 0
        self.next_folder_look = 0.0
        self.born_with = 0
        self.worker = 0
        self.status: int | None = None
        self.verdict: dict[str, Any] | None = None
        self.head, self.tail = bytearray(), bytearray()
        self.dropped = False
        self.result = bytearray()
        self.seal = secrets.token_hex(16).encode()

    def run(self, report: int) -> bytes:
        wake = self._prepare(report)
        result_read, result_write = os.pipe()
        output_read, output_write = os.pipe()
        with contextlib.suppress(OSError):
            fcntl.fcntl(output_write, _SET_PIPE_SIZE, _PIPE_BYTES)
        started = time.monotonic()
        self.born_with = own_memory("self")[0]
        self.memory = MemoryWatch(self.limits["memory_bytes"], self.born_with)
        self.worker = os.fork()
        if self.worker == 0:
            if not self.confined:
                linux.control_process(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
            run_worker(
                self.call,
                result=result_write,
                output=output_write,
                folder=self.scratch or self.private,
                private=self.private,
                gpu=self.gpu,
                seal=self.seal,
            )
        for descriptor in (result_write, output_write):
            os.close(descriptor)
        for descriptor in (result_read, output_read):
            os.set_blocking(descriptor, False)
        self._watch(started, wake, result_read, output_read)
        seconds = time.monotonic() - started
        self._kill_all()
        self._drain(result_read, output_read, final=True)
        if not self.confined:
            shutil.rmtree(self.private, ignore_errors=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        head = {
            "status": self.status,
            "verdict": self.verdict,
            "seconds": seconds,
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "output": (bytes(self.head) + self._tail_text()).decode(errors="replace"),
            "too_large": len(self.result) > MAX_RESULT_BYTES,
            "forged": self._is_forged(),
        }
        return pack_report(head, b"" if head["too_large"] or head["forged"] else self._opened_result())

    def _is_forged(self) -> bool:
        """The worker had begun its target, and what it wrote since does not begin with the seal of this call."""
        begun = bytes(self.result[: len(SETTLED)]) == SETTLED and len(self.result) > len(SETTLED)
        return begun and not self.result.startswith(SETTLED + self.seal)

    def _opened_result(self) -> bytes:
        sealed = SETTLED + self.seal
        return SETTLED + bytes(self.result[len(sealed) :]) if self.result.startswith(sealed) else bytes(self.result)

    def _prepare(self, report: int) -> socket.socket:
        """Namespaces, file system, descriptors and signals of this process; the socket that a child's end wakes."""
        os.closerange(3, report)
        os.closerange(report + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        for which in (signal.SIGINT, signal.SIGTERM):
            signal.signal(which, signal.SIG_DFL)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        self.folder_before = folder_bytes(self.scratch, 1 << 62) if self.scratch else 0
        if self.confined:
            enter_keeper_namespaces()
            socket.sethostname("worker")
            binds = [Bind(path) for path in self.call["readable"]]
            binds += [Bind(self.scratch, writable=True)] if self.scratch else []
            build_file_system(binds, self.devices, self.limits["file_bytes"])
        else:
            linux.control_process(linux.PR_SET_CHILD_SUBREAPER, 1)
            self.private = tempfile.mkdtemp(prefix="evoscale-worker-")
        wake, waker = socket.socketpair()
        for end in (wake, waker):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.detach(), warn_on_full_buffer=False)
        return wake

    def _watch(self, started: float, wake: socket.socket, result: int, output: int) -> None:
        """Until the worker is dead or over a limit."""
        poller = select.poll()
        for descriptor in (wake.fileno(), result, output):
            poller.register(descriptor, select.POLLIN)
        next_look = 0.0
        while True:
            deadline = started + self.limits["seconds"]
            wait = min(_TICK, max(0.0, deadline - time.monotonic()))
            for descriptor, event in poller.poll(wait * 1000):
                if descriptor != wake.fileno() and not event & select.POLLIN:
                    poller.unregister(descriptor)  # every writer closed it
            with contextlib.suppress(BlockingIOError):
                wake.recv(4096)
            self._drain(result, output)
            self._reap()
            if self.status is not None:
                return
            now = time.monotonic()
            if now >= deadline:
                self.verdict = {"kind": "timed_out", "limit": self.limits["seconds"], "clock": "wall"}
            elif not self.confined and os.getppid() != self.parent:
                self.verdict = {"kind": "killed", "reason": "the warm parent died"}
            elif now >= next_look:
                self._look(now)
                looked = time.monotonic()
                next_look = looked + max(_TICK, 5 * (looked - now))
            if self.verdict is not None:
                return

    def _look(self, now: float) -> None:
        """Hold what the worker uses against its limits; the cheap count first, for while I look a bomb grows."""
        pids, limits = self._pids(), self.limits
        usage = measure_usage(pids, self.born_with) if len(pids) <= limits["processes"] else None
        if usage is None or usage.tasks > limits["processes"]:
            self.verdict = {"kind": "killed", "reason": f"more than {limits['processes']} processes and threads"}
            return
        in_files = sum(_used(folder) for folder in ("/tmp", "/dev/shm")) if self.confined else 0
        if self.memory.is_over(pids, usage.memory_bytes, in_files):
            self.verdict = {"kind": "out_of_memory", "limit": limits["memory_bytes"]}
            return
        if limits["cpu_seconds"] is not None:
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            if usage.cpu_seconds + used.ru_utime + used.ru_stime > limits["cpu_seconds"]:
                self.verdict = {"kind": "timed_out", "limit": limits["cpu_seconds"], "clock": "cpu"}
                return
        if now >= self.next_folder_look:
            self._look_at_folders(pids)

    def _look_at_folders(self, pids: list[int]) -> None:
        began = time.monotonic()
        folders = [self.scratch] if self.scratch else []
        folders += [] if self.confined else [self.private]  # else it is in memory and has a size
        allowed = self.limits["file_bytes"] + (self.folder_before if self.scratch else 0)
        for folder in folders:
            with contextlib.suppress(OSError):
                used = folder_bytes(folder, allowed) + deleted_bytes(pids, os.stat(folder).st_dev)
                if used > allowed:
                    reason = f"wrote more than {self.limits['file_bytes']:,} bytes to its scratch folder"
                    self.verdict = {"kind": "killed", "reason": reason}
        ended = time.monotonic()
        self.next_folder_look = ended + max(_FOLDER_TICK, 10 * (ended - began))

    def _pids(self) -> list[int]:
        return [pid for pid in all_processes() if pid != 1] if self.confined else descendants(os.getpid())

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.worker:
                    self.status = status

    def _kill_all(self) -> None:
        """Kill and reap the worker and every descendant."""
        while True:
            if self.confined and os.getpid() == 1:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, signal.SIGKILL)
            else:
                for pid in descendants(os.getpid()):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
            try:
                pid, status = os.waitpid(-1, 0)
            except ChildProcessError:
                return
            if pid == self.worker:
                self.status = status

    def _drain(self, result: int, output: int, *, final: bool = False) -> None:
        """Take what the worker wrote; of its output only the beginning and the end are kept."""
        for descriptor in (result, output):
            with contextlib.suppress(BlockingIOError):
                for _ in range(_CHUNKS_A_TICK if not final else 2 * _CHUNKS_A_TICK):
                    chunk = os.read(descriptor, _CHUNK)
                    if not chunk:
                        break
                    if descriptor == output:
                        self._keep_output(chunk)
                    elif len(self.result) <= MAX_RESULT_BYTES:
                        self.result += chunk

    def _keep_output(self, chunk: bytes) -> None:
        room = _HEAD_BYTES - len(self.head)
        if room > 0:
            self.head += chunk[:room]
            chunk = chunk[room:]
        self.tail += chunk[-2 * MAX_OUTPUT_BYTES :]
        if len(self.tail) > MAX_OUTPUT_BYTES:
            self.dropped = True
            del self.tail[:-MAX_OUTPUT_BYTES]

    def _tail_text(self) -> bytes:
        return (b"\n...\n" if self.dropped else b"") + bytes(self.tail)


def _used(folder: str) -> int:
    """Room taken in an in-memory folder, in bytes."""
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize

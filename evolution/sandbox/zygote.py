"""The warm parent: a fresh Python with torch and the harness imported that forks one keeper for each call.

Started by the supervisor as `python -m evolution.sandbox.zygote DESCRIPTOR PID namespaces|bare`. It runs no untrusted
code, starts no thread and no parallel region (a fork would copy their locks but not their threads), and ends when
the supervisor does.

With namespaces it is two processes: a small launcher in the user namespace, and the warm parent proper, which is
init of a pid namespace: however either of them ends, the kernel kills every worker.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from . import system_calls as linux
from .keeper import run_keeper
from .namespaces import children_in_new_pid_namespace, enter_user_namespace
from .protocol import pack_report, receive_frame, send_frame
from .usage import descendants
from .visible_paths import devices, gpu_devices, visible_paths

_WATCH_SECONDS = 0.5


def main() -> NoReturn:
    """Entry point of the process."""
    descriptor, supervisor, confined = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "namespaces"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to handle
    if confined:
        enter_user_namespace()
        child = os.fork()
        if child:
            os.close(descriptor)
            _launch(child, supervisor)
        linux.control_process(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    with socket.socket(fileno=descriptor) as channel:
        _Zygote(channel, 0 if confined else supervisor).serve()
    os._exit(0)


def _launch(child: int, supervisor: int) -> NoReturn:
    """Outlive neither the warm parent nor the supervisor."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
        if os.getppid() != supervisor:
            os.kill(child, signal.SIGKILL)
        signal.sigtimedwait({signal.SIGCHLD}, _WATCH_SECONDS)


class _Zygote:
    def __init__(self, channel: socket.socket, supervisor: int) -> None:
        """Args: channel: to the supervisor. supervisor: its pid, or 0 where a launcher watches it."""
        self.channel = channel
        self.supervisor = supervisor
        self.confined = supervisor == 0
        self.own_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self.keepers: dict[int, int] = {}  # pid of the keeper -> number of the call
        self.visible: list[str] = []
        self.devices = devices()
        self.gpu = bool(gpu_devices())

    def serve(self) -> None:
        """Serve calls until the supervisor closes the channel or dies."""
        wake, waker = socket.socketpair()
        for end in (wake, waker):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        poller = select.poll()
        poller.register(self.channel, select.POLLIN)
        poller.register(wake, select.POLLIN)
        with contextlib.suppress(EOFError, OSError):
            self._warm_up()
            while True:
                ready = {descriptor for descriptor, _ in poller.poll(_WATCH_SECONDS * 1000)}
                if wake.fileno() in ready:
                    with contextlib.suppress(BlockingIOError):
                        wake.recv(4096)
                    self._reap()
                if self.channel.fileno() in ready:
                    self._serve_one()
                if self.supervisor and os.getppid() != self.supervisor:
                    break
        for keeper in list(self.keepers):
            self._kill(keeper)

    def _warm_up(self) -> None:
        request, _ = receive_frame(self.channel)
        began = time.monotonic()
        failed = {}
        for name in request["preload"]:
            try:
                importlib.import_module(name)
            except Exception as error:
                failed[name] = f"{type(error).__name__}: {error}"
        self.visible = visible_paths(sys.path)
        _fix_global_randomness()
        gc.collect()
        gc.freeze()  # keep the collector from writing to pages that the workers share
        threads = len(os.listdir("/proc/self/task"))
        send_frame(self.channel, {"failed": failed, "threads": threads, "seconds": time.monotonic() - began})

    def _serve_one(self) -> None:
        message, descriptors = receive_frame(self.channel)
        if "kill" in message:
            for keeper, call in list(self.keepers.items()):
                if call == message["kill"]:
                    self._kill(keeper)
            return
        (report,) = descriptors
        try:
            if self.confined:
                with children_in_new_pid_namespace(self.own_namespace):
                    keeper = self._fork(message, report)
            else:
                keeper = self._fork(message, report)
            self.keepers[keeper] = message["number"]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.write(report, pack_report({"setup": f"{type(error).__name__}: {error}"}, b""))
        finally:
            os.close(report)

    def _fork(self, message: dict[str, Any], report: int) -> int:
        keeper = os.fork()
        if keeper:
            return keeper
        try:
            signal.set_wakeup_fd(-1)
            message["readable"] = [*self.visible, *message["readable"]]
            run_keeper(message, report=report, confined=self.confined, devices=self.devices, gpu=self.gpu)
        finally:
            os._exit(70)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, _ = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self.keepers.pop(pid, None)

    def _kill(self, keeper: int) -> None:
        """Kill a keeper (not yet reaped, so the number is still its own) and all below it."""
        below = [] if self.confined else descendants(keeper)
        for pid in (keeper, *below):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _fix_global_randomness() -> None:
    """Every worker starts from the same state of the global generators (Python's own is set in the worker)."""
    for name in ("numpy.random", "torch"):
        module = sys.modules.get(name)
        if module is not None:
            (module.seed if name == "numpy.random" else module.manual_seed)(0)


if __name__ == "__main__":
    main()

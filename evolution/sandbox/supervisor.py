"""`Sandbox`: call a function on untrusted input in a worker that cannot reach anything and can always be killed.

    with Sandbox() as sandbox:
        result = sandbox.call("training.worker:measure", arguments, limits=Limits(seconds=60))

Each call costs two forks of a warm parent that has torch imported. Three clocks hold a call's time limit: the keeper
inside, this supervisor some seconds later, and, if the warm parent itself no longer answers, its end.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from .ability import SandboxUnavailable, sandbox_ability
from .environment import check_extra_environment, worker_environment
from .leftovers import make_harmless
from .limits import Limits
from .protocol import SETTLED, parse_answer, read_report, receive_frame, send_frame
from .result import KEEPER_KILLED, Exited, Killed, OutOfMemory, Raised, Returned, TimedOut, WorkerResult

WARM_MODULES = (
    "torch",
    "torch._dynamo",
    "torch.optim",
    "data.corpus",
    "models.language_model",
    "training.trainer",
    "training.worker",
    "evolution.guards.worker",
    *(f"evolution.guards.{name}" for name in ("build", "parity", "forward", "cost", "state", "batch", "causality")),
    *(f"evolution.guards.{name}" for name in ("jacobian", "model_causality", "precision", "sweeps", "branches")),
    "evolution.guards.fingerprint",
)
"""What the warm parent imports before it forks; one that cannot be imported is left out."""

_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_NOT_TO_GIVE = frozenset({"/", "/dev", "/etc", "/proc", "/run", "/sys", "/tmp", "/var"})
_START_SECONDS = 180.0
_GRACE_SECONDS = 10.0
_LAST_GRACE_SECONDS = 5.0
_STARTS_OF_ONE_CALL = 2


class Sandbox:
    """Runs functions in confined workers; a context manager, safe to use from several threads at once.

    Args:
        allow_unsandboxed: where the kernel cannot confine workers, run them with limits only (own session, memory,
            time, files), without namespaces: they can then read and write what this user can, and use the network.
        preload: modules for the warm parent to import.

    Attributes:
        confined: workers run in namespaces of their own.

    Raises:
        SandboxUnavailable: the kernel cannot confine workers and `allow_unsandboxed` is not set.
    """

    def __init__(self, *, allow_unsandboxed: bool = False, preload: Sequence[str] = WARM_MODULES) -> None:
        ability = sandbox_ability()
        if not ability.namespaces and not allow_unsandboxed:
            raise SandboxUnavailable(f"{ability.reason} Or allow unsandboxed workers, if you trust every candidate.")
        self.confined = ability.namespaces
        self._preload = tuple(preload)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._zygote: _Zygote | None = None
        self._calls: dict[int, bool] = {}  # number -> cancelled
        self._closed = False
        self._zygote = _Zygote(self._preload, confined=self.confined)  # imports while the caller goes on

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def warm_up(self) -> dict[str, Any]:
        """Wait until the warm parent is ready.

        Returns:
            Its greeting: `seconds` its imports took, `threads` it has (1), `failed` imports and why.

        Raises:
            SandboxUnavailable: it does not start; the message has its last words.
        """
        return self._warm_parent().greeting()

    def call(
        self,
        target: str,
        arguments: Any,
        *,
        limits: Limits,
        readable: Sequence[Path] = (),
        scratch: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> WorkerResult:
        """Run `target(arguments)` in a fresh worker and wait for its end.

        Args:
            target: "package.module:function", importable from this process's sys.path.
            arguments: a finite JSON value.
            limits: what the worker may spend.
            readable: files and folders of the machine that it may read beside the code.
            scratch: a folder that it may write and that stays, and its working folder. What the worker left there
                is untrusted content; links and special files in it are removed when the call ends. Without one the
                working folder is private and dies with the worker.
            environment: variables beside the clean environment; names that look like secrets are refused.

        Returns:
            How it ended. Whatever the worker does, nothing is raised for it and no process of it lives on.

        Raises:
            ValueError: this call itself is malformed (target, arguments, paths, environment), or the sandbox is closed.
        """
        folder = None if scratch is None else _checked_path(scratch, folder=True)
        request = {
            "target": _checked_target(target),
            "arguments": _checked_arguments(arguments),
            "limits": asdict(limits),
            "readable": [_checked_path(path, folder=False) for path in readable],
            "scratch": folder,
            "environment": check_extra_environment(environment or {}),
        }
        number = next(self._numbers)
        with self._lock:
            if self._closed:
                raise ValueError("The sandbox is closed: make a new one.")
            self._calls[number] = False
        started = time.monotonic()
        try:
            result = self._call(number, request, limits)
        except Exception as error:  # a defect of the sandbox is not the caller's end
            result = Raised("SandboxError", f"{type(error).__name__}: {error}", seconds=time.monotonic() - started)
        finally:
            with self._lock:
                self._calls.pop(number, None)
            if folder is not None:
                make_harmless(folder)
        return result

    def cancel_all(self) -> int:
        """Kill every call in flight; each returns `Killed` with reason "cancelled". Returns how many there were."""
        with self._lock:
            numbers = list(self._calls)
            self._calls.update(dict.fromkeys(numbers, True))
            zygote = self._zygote
        for number in numbers:
            if zygote is not None:
                zygote.kill(number)
        return len(numbers)

    def close(self) -> None:
        """Kill what is in flight, end the warm parent, and wait until it is gone. May be called twice."""
        with self._lock:
            self._closed = True
            self._calls.update(dict.fromkeys(self._calls, True))
            zygote, self._zygote = self._zygote, None
        if zygote is not None:
            zygote.end()

    def _warm_parent(self) -> _Zygote:
        with self._lock:
            if self._closed:
                raise ValueError("The sandbox is closed: make a new one.")
            if self._zygote is None or self._zygote.is_dead():
                if self._zygote is not None:
                    self._zygote.end()
                self._zygote = _Zygote(self._preload, confined=self.confined)
            return self._zygote

    def _call(self, number: int, request: dict[str, Any], limits: Limits) -> WorkerResult:
        started = time.monotonic()
        for _ in range(_STARTS_OF_ONE_CALL):
            if self._is_cancelled(number):
                break
            sent = time.monotonic()
            try:
                zygote = self._warm_parent()
                zygote.greeting()
                sent = time.monotonic()
                answer = zygote.call(number, request, limits.seconds)
            except TimeoutError:
                return TimedOut(limits.seconds, seconds=time.monotonic() - sent)
            except (SandboxUnavailable, ValueError):
                if self._is_cancelled(number):  # closed meanwhile
                    break
                raise
            except OSError:
                answer = None  # the warm parent died before it took the call
            if answer is not None:
                return _result(*answer, limits)
            if not zygote.is_dead():  # only this call's keeper died
                break
        reason = "cancelled" if self._is_cancelled(number) else KEEPER_KILLED
        return Killed(int(signal.SIGKILL), reason, seconds=time.monotonic() - started)

    def _is_cancelled(self, number: int) -> bool:
        with self._lock:
            return self._calls.get(number, True)


class _Zygote:
    """The supervisor's side of one warm parent."""

    def __init__(self, preload: Sequence[str], *, confined: bool) -> None:
        ours, theirs = socket.socketpair()
        self._channel = ours
        self._sending = threading.Lock()
        self._greeting_lock = threading.Lock()
        self._greeting: dict[str, Any] | None = None
        self._last_words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        mode = "namespaces" if confined else "bare"
        arguments = [str(theirs.fileno()), str(os.getpid()), mode]
        import_path = [*(path for path in sys.path if path), str(Path(__file__).parents[2])]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-B", "-m", "evolution.sandbox.zygote", *arguments],
                env=worker_environment(os.environ, import_path),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=self._last_words,
                stderr=self._last_words,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        with contextlib.suppress(OSError):
            self._send({"preload": list(preload)})

    def greeting(self) -> dict[str, Any]:
        """Wait for the imports. Raises: SandboxUnavailable."""
        with self._greeting_lock:
            if self._greeting is None:
                self._channel.settimeout(_START_SECONDS)
                try:
                    self._greeting, _ = receive_frame(self._channel)
                except (OSError, EOFError) as error:
                    self.end()
                    self._last_words.seek(0)
                    words = self._last_words.read().decode(errors="replace").strip()[-2000:]
                    message = (
                        f"The sandbox's warm parent did not start ({type(error).__name__}). Its last words: {words}"
                    )
                    raise SandboxUnavailable(message) from error
                self._channel.settimeout(None)
            return self._greeting

    def call(self, number: int, request: dict[str, Any], seconds: float) -> tuple[dict[str, Any], bytes] | None:
        """One call's report; None if its keeper died without one.

        Raises:
            OSError: the warm parent is gone.
            TimeoutError: no report though the time limit is long past; everything of the call was killed.
        """
        read, write = os.pipe()
        try:
            try:
                self._send({"number": number, **request}, [write])
            finally:
                os.close(write)
            try:
                return read_report(read, seconds + _GRACE_SECONDS)
            except TimeoutError:
                self.kill(number)
            except BaseException:  # Ctrl-C: nobody will take the report
                self.kill(number)
                raise
            try:
                read_report(read, _LAST_GRACE_SECONDS)
            except TimeoutError:
                self.end()  # it does not even kill: stopped, or stuck
            raise TimeoutError(f"no report {_GRACE_SECONDS:g} s after the time limit")
        finally:
            os.close(read)

    def kill(self, number: int) -> None:
        """Ask for a call's end; without effect when it has ended."""
        with contextlib.suppress(OSError):
            self._send({"kill": number})

    def is_dead(self) -> bool:
        """The warm parent has closed its end, or its launcher is gone."""
        if self._process.poll() is not None:
            return True
        poll = select.poll()
        try:
            # Not by a read: while another thread waits for the greeting, the channel's time limit would hold it up.
            poll.register(self._channel, select.POLLRDHUP)
            return bool(poll.poll(0))
        except (OSError, ValueError):
            return True

    def end(self) -> None:
        """Close the channel, kill the process, and reap it."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(_LAST_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._channel.close()

    def _send(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        with self._sending:
            send_frame(self._channel, message, descriptors)


def _checked_target(target: str) -> str:
    if not isinstance(target, str) or not _TARGET.fullmatch(target):
        raise ValueError(f"The target is {target!r}: it must read 'package.module:function'.")
    return target


def _checked_arguments(arguments: Any) -> str:
    try:
        return json.dumps(arguments, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"The arguments are not a finite JSON value: {error}.") from error


def _checked_path(path: Path, *, folder: bool) -> str:
    absolute = os.path.abspath(path)
    if not (os.path.isdir(absolute) if folder else os.path.exists(absolute)):
        raise ValueError(f"{absolute!r} is no existing {'folder' if folder else 'file or folder'}: create it first.")
    if os.path.realpath(absolute) in _NOT_TO_GIVE:
        raise ValueError(f"{absolute!r} as a whole cannot be given to a worker: name the folder in it that is needed.")
    return absolute


def _result(head: dict[str, Any], raw: bytes, limits: Limits) -> WorkerResult:
    """The typed ending from a keeper's report and the worker's raw, untrusted answer."""
    if "setup" in head:
        return Raised("SandboxError", f"The worker could not be set up: {head['setup']}")
    spent: dict[str, Any] = {name: head[name] for name in ("seconds", "cpu_seconds", "output")}
    verdict = head["verdict"]
    if verdict is not None:
        if verdict["kind"] == "timed_out":
            return TimedOut(verdict["limit"], verdict["clock"], **spent)
        if verdict["kind"] == "out_of_memory":
            return OutOfMemory(verdict["limit"], **spent)
        return Killed(int(signal.SIGKILL), verdict["reason"], **spent)
    code = os.waitstatus_to_exitcode(head["status"])
    if code == -signal.SIGXCPU and limits.cpu_seconds is not None:
        return TimedOut(limits.cpu_seconds, "cpu", **spent)
    if code < 0:
        return Killed(-code, **spent)
    if head["too_large"]:
        return Raised("InvalidResult", "The worker's answer is larger than allowed.", **spent)
    if head["forged"] and code == 0:
        return Raised("InvalidResult", "The answer was written by the target and not by the harness.", **spent)
    if raw and not raw.startswith(SETTLED):
        return Raised("SandboxError", f"The worker could not be set up: {raw[:500].decode(errors='replace')}", **spent)
    if code != 0 or len(raw) <= len(SETTLED):
        return Exited(code, **spent)
    answer = parse_answer(raw)
    if isinstance(answer, dict) and set(answer) == {"returned"}:
        return Returned(answer["returned"], **spent)
    if isinstance(answer, dict) and {"raised", "detail"} <= set(answer):
        if answer.get("memory") is True:
            return OutOfMemory(limits.memory_bytes, **spent)
        error = str(answer["raised"])[:200]
        if error != "SandboxError":  # that name is the sandbox's own
            return Raised(error, str(answer["detail"])[:8000], **spent)
    detail = answer if isinstance(answer, str) else "it is no answer of a worker"
    return Raised("InvalidResult", f"The worker's answer cannot be used: {detail}.", **spent)

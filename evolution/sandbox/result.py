"""How a call into the sandbox ended: one frozen type for each ending.

What a worker *returned* is what the candidate's process said. An answer that does not begin with the seal of its call
was written by the target itself and is an invalid result. That stops a target that writes to the result channel; one
that could search its own process's memory would still find the seal, and it is the static guards that refuse all means
to do so. Whatever it says, a result is finite JSON of bounded size.
"""

from __future__ import annotations

import signal as signals
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

KEEPER_KILLED = "the process that kept the worker was killed"
"""Reason of a worker's end when its keeper died without a report; no worker can bring that about."""


@dataclass(frozen=True)
class _Ending:
    """What every ending tells.

    Attributes:
        seconds: wall-clock time of the worker, in seconds.
        cpu_seconds: CPU time of the worker and its descendants, in seconds.
        output: the end of what it printed (stdout and stderr together), capped.
    """

    seconds: float = field(default=0.0, kw_only=True)
    cpu_seconds: float = field(default=0.0, kw_only=True)
    output: str = field(default="", kw_only=True, repr=False)

    status: ClassVar[str]


@dataclass(frozen=True)
class Returned(_Ending):
    """The target returned `value`, finite JSON."""

    value: Any
    status: ClassVar[str] = "returned"

    def __str__(self) -> str:
        return f"returned after {self.seconds:.2f} s"


@dataclass(frozen=True)
class Raised(_Ending):
    """The target raised `error` (a class name); `detail` is its message and the end of the traceback.

    `error` is "InvalidResult" when the target returned something that is not finite JSON within the size cap, and
    "SandboxError" when the worker could not be set up, which is no fault of the target.
    """

    error: str
    detail: str
    status: ClassVar[str] = "raised"

    def __str__(self) -> str:
        return f"raised {self.error}: {self.detail.strip().splitlines()[-1] if self.detail.strip() else ''}".rstrip(
            ": "
        )


@dataclass(frozen=True)
class Exited(_Ending):
    """The process left with exit status `code` without returning (sys.exit, os._exit)."""

    code: int
    status: ClassVar[str] = "exited"

    def __str__(self) -> str:
        return f"left the process with exit status {self.code}"


@dataclass(frozen=True)
class Killed(_Ending):
    """The process died of `signal`; `reason` says of what, where the sandbox itself killed it."""

    signal: int
    reason: str = ""
    status: ClassVar[str] = "killed"

    def __str__(self) -> str:
        try:
            name = signals.Signals(self.signal).name
        except ValueError:
            name = f"signal {self.signal}"
        return f"killed by {name}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class TimedOut(_Ending):
    """The worker passed `limit_seconds` of wall-clock time, or of CPU time (`clock` says which)."""

    limit_seconds: float
    clock: Literal["wall", "cpu"] = "wall"
    status: ClassVar[str] = "timed_out"

    def __str__(self) -> str:
        return f"passed the limit of {self.limit_seconds:g} s of {'wall-clock' if self.clock == 'wall' else 'CPU'} time"


@dataclass(frozen=True)
class OutOfMemory(_Ending):
    """The worker wanted more than `limit_bytes` of memory."""

    limit_bytes: int
    status: ClassVar[str] = "out_of_memory"

    def __str__(self) -> str:
        return f"passed the memory limit of {self.limit_bytes / (1 << 20):.0f} MiB"


WorkerResult = Returned | Raised | Exited | Killed | TimedOut | OutOfMemory

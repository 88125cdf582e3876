"""Limits of one call into the sandbox."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one worker may spend; it is killed with all its descendants at the first limit it passes.

    Attributes:
        seconds: wall-clock time of the call, in seconds.
        memory_bytes: memory of its own (private, shared, swapped and in-memory files) of the worker and its
            descendants together, in bytes, on top of what it was born with.
        cpu_seconds: CPU time of the worker and its descendants together, in seconds; None: no limit but `seconds`.
        file_bytes: largest file, room in the private scratch folder, and growth of a persistent scratch folder,
            in bytes each.
        processes: processes and threads alive at one time, the worker itself included.
    """

    seconds: float = 60.0
    memory_bytes: int = 2 << 30
    cpu_seconds: float | None = None
    file_bytes: int = 256 << 20
    processes: int = 64

    def __post_init__(self) -> None:
        """Raises: ValueError: a limit is not a finite number above zero."""
        for name in ("seconds", "memory_bytes", "cpu_seconds", "file_bytes", "processes"):
            value = getattr(self, name)
            if value is None and name == "cpu_seconds":
                continue
            whole = name not in ("seconds", "cpu_seconds")
            legal = isinstance(value, int) if whole else isinstance(value, (int, float))
            if isinstance(value, bool) or not legal or not math.isfinite(value) or value <= 0:
                kind = "a whole number above 0" if whole else "a finite number above 0"
                raise ValueError(f"Limits.{name} is {value!r}: it must be {kind}.")

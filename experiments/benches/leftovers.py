"""Processes that a run left behind: alive or not reaped, ours by descent or by what they carry."""

from __future__ import annotations

import os
import time

_WAIT_SECONDS = 5.0


class Leftovers:
    """What is alive beside the processes that were there before.

    Args:
        mark: an argument that hostile blocks give to programs they start.
    """

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self._before = frozenset(_ours(mark))

    def found(self) -> list[str]:
        """Processes left, after a grace in which they may still end; one that was given to init counts too."""
        until = time.monotonic() + _WAIT_SECONDS
        while True:
            left = {pid: told for pid, told in _ours(self.mark).items() if pid not in self._before}
            if not left or time.monotonic() > until:
                return list(left.values())
            time.sleep(0.05)


def _ours(mark: str) -> dict[int, str]:
    """Process id -> what it is, for descendants of this process and for orphans that carry its id or the mark."""
    import psutil

    own = str(os.getpid())
    below = {process.pid for process in psutil.Process().children(recursive=True)}
    found = {}
    for process in psutil.process_iter(["pid", "status", "cmdline"]):
        arguments = process.info["cmdline"] or []
        orphan = mark in arguments or ("evolution.sandbox.zygote" in arguments and own in arguments)
        if process.pid in below or (orphan and process.pid != os.getpid()):
            kind = "zombie" if process.info["status"] == psutil.STATUS_ZOMBIE else "process"
            found[process.pid] = f"{kind} {process.pid} is left ({' '.join(arguments)[:60] or 'no command line'})"
    return found

"""Is a worker with its descendants over its memory limit? Answered cheaply, and without being held up.

The cheap sum counts a page that a parent and its forked children share once for each of them, so it is an upper
bound. Only where it is over the limit and there are several processes are shared pages counted once; the kernel then
walks page tables and waits for processes that are forking (over a second under a fork bomb), so a thread does that
while the keeper goes on watching the clock and the number of processes.
"""

from __future__ import annotations

import threading

from .usage import memory_counted_once

_SHORT_OF_MEMORY = 512 << 20
_TIMES_OVER = 2  # a process that ends between two readings makes the shares of the others look larger


class MemoryWatch:
    """Holds one worker against one limit.

    Args:
        limit_bytes: most that the worker and its descendants may own together, in bytes.
        born_with: own memory of a worker at birth, in bytes.
    """

    def __init__(self, limit_bytes: int, born_with: int) -> None:
        self._limit = limit_bytes
        self._born_with = born_with
        self._counting: threading.Thread | None = None
        self._counted: list[int | None] = []
        self._times_over = 0

    def is_over(self, pids: list[int], upper_bound: int, in_files: int) -> bool:
        """Whether the limit is passed.

        Args:
            pids: the worker and its descendants.
            upper_bound: their own memory by the cheap sum, in bytes.
            in_files: memory in the worker's in-memory folders, in bytes.
        """
        if upper_bound + in_files <= self._limit:
            self._times_over = 0
            return False
        if len(pids) < 2 or _available_memory() < _SHORT_OF_MEMORY:
            return True
        if self._counting is not None and self._counting.is_alive():
            return False
        if self._counted:
            counted = self._counted.pop()
            over = counted is None or counted + in_files > self._limit
            self._times_over = self._times_over + 1 if over else 0
        if self._times_over >= _TIMES_OVER:
            return True
        self._counting = threading.Thread(target=self._count, args=(pids,), daemon=True)
        self._counting.start()
        return False

    def _count(self, pids: list[int]) -> None:
        self._counted.append(memory_counted_once(pids, self._born_with))


def _available_memory() -> int:
    """What the machine has left, in bytes."""
    try:
        with open("/proc/meminfo", "rb") as file:
            for line in file:
                if line.startswith(b"MemAvailable"):
                    return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return _SHORT_OF_MEMORY

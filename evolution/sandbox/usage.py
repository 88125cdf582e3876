"""What a worker and its descendants use, read from /proc."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass

_TICKS = os.sysconf("SC_CLK_TCK")
_OWN_MEMORY = (b"RssAnon", b"RssShmem", b"VmSwap")
_SHARES = (b"Pss_Anon", b"Pss_Shmem", b"SwapPss")
_BLOCK = 512
_LEAST_FILE = 4096


@dataclass(frozen=True)
class Usage:
    """Processes and threads alive, their own memory in bytes, and their CPU time in seconds."""

    tasks: int
    memory_bytes: int
    cpu_seconds: float


def own_memory(pid: int | str) -> tuple[int, int]:
    """(own memory in bytes, threads) of a process: private, shared and swapped, not mapped files. (0, 0): gone."""
    memory, threads = 0, 0
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                name, _, value = line.partition(b":")
                if name in _OWN_MEMORY:
                    memory += int(value.split()[0]) << 10
                elif name == b"Threads":
                    threads = int(value)
    except (OSError, ValueError):
        return 0, 0
    return memory, threads


def measure_usage(pids: list[int], born_with: int) -> Usage:
    """What `pids` use together. A page that a parent and its children share is counted for each of them.

    Args:
        pids: the worker and its descendants.
        born_with: own memory of a worker at birth, in bytes: pages of the warm parent, which it may rewrite for free.
    """
    tasks, memory, ticks = 0, 0, 0
    for pid in pids:
        own, threads = own_memory(pid)
        memory += own
        tasks += threads
        ticks += _cpu_ticks(pid)
    return Usage(tasks, max(0, memory - born_with), ticks / _TICKS)


def memory_counted_once(pids: list[int], born_with: int) -> int | None:
    """Own memory of `pids` in bytes with each shared page counted once; None where the kernel does not tell.

    Slower than `measure_usage` (the kernel walks page tables): for when that one is over a limit.
    """
    shares = [_proportional(pid) for pid in pids]
    known = [share for share in shares if share is not None]
    return max(0, sum(known) - born_with) if len(known) == len(shares) else None


def _proportional(pid: int) -> int | None:
    total, seen = 0, 0
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                name, _, value = line.partition(b":")
                if name in _SHARES:
                    total += int(value.split()[0]) << 10
                    seen += 1
    except (FileNotFoundError, ProcessLookupError):
        return 0
    except (OSError, ValueError):
        return None
    return total if seen == len(_SHARES) else None


def _cpu_ticks(pid: int) -> int:
    """User and system time of a process and of the children it waited for."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return sum(int(field) for field in fields[11:15])
    except (OSError, ValueError, IndexError):
        return 0


def all_processes() -> list[int]:
    """Every process that /proc shows."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def descendants(root: int) -> list[int]:
    """Descendants of `root`, for where no pid namespace holds them together."""
    parents: dict[int, int] = {}
    for pid in all_processes():
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{pid}/stat", "rb") as file:
                parents[pid] = int(file.read().rpartition(b")")[2].split()[1])
    found, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return sorted(found - {root})


def folder_bytes(folder: str, enough: int) -> int:
    """Room that the files under `folder` take, in bytes; stops counting above `enough`. Links are not followed."""
    total, waiting = 0, [folder]
    while waiting and total <= enough:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    total += max(found.st_blocks * _BLOCK, _LEAST_FILE)
                    if stat.S_ISDIR(found.st_mode):
                        waiting.append(entry.path)
                if total > enough:
                    break
    return total


def deleted_bytes(pids: list[int], device: int) -> int:
    """Room of files on `device` that were deleted but are still open in `pids`, in bytes."""
    files: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    found = os.stat(f"/proc/{pid}/fd/{name}")
                    if found.st_nlink == 0 and found.st_dev == device and stat.S_ISREG(found.st_mode):
                        files[found.st_ino] = found.st_blocks * _BLOCK
    return sum(files.values())

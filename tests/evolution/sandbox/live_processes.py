"""See which processes are alive, and wait for what is about to happen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import psutil


def alive_below(pid: int) -> list[psutil.Process]:
    """Processes below `pid`, zombies included."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def running_workers() -> list[psutil.Process]:
    """Keepers and workers below this process: all but launchers and warm parents."""
    found = []
    for process in alive_below(os.getpid()):
        try:
            if len(process.parents()) - len(psutil.Process().parents()) > 2:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True

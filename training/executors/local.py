"""Runs on this machine: one thread waits for each worker process that measures.

The threads only block; the work happens wherever the injected `measure` puts it, normally in a
sandboxed process with one thread of its own. Two threads in one process are slower than two processes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from training.flops import training_flops
from training.outcome import Outcome
from training.run_spec import RunSpec

Measure = Callable[[RunSpec, str | None], Outcome]

_place = threading.local()


def worker_slot() -> int:
    """Which of an executor's workers calls, from 0; a measure takes its GPU by it. 0 outside of one."""
    return getattr(_place, "slot", 0)


def longest_first(work: Iterable[tuple[RunSpec, str]]) -> list[tuple[RunSpec, str]]:
    """Runs (spec, source) by the reference's FLOPs at their size, the most first: no long run starts last."""
    return sorted(work, key=lambda item: -training_flops(item[0]))


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def default_workers(device: str) -> int:
    """One worker a GPU where runs on `device` (`auto`, `cpu` or `cuda`) go to GPUs, else one a core."""
    if device != "cpu" and os.path.exists("/dev/nvidia0"):  # torch is not loaded for a machine without one
        import torch

        if torch.cuda.is_available():
            return torch.cuda.device_count()
    return available_cores()


class LocalExecutor:
    """Measures up to `workers` specs at once, in the order they were submitted.

    Args:
        workers: how many at once; None takes one for every core this process may use.
        measure: blocking call from (spec, source) to the outcome.

    Raises:
        ValueError: `workers` below 1.
    """

    def __init__(self, workers: int | None, measure: Measure) -> None:
        count = available_cores() if workers is None else workers
        if count < 1:
            raise ValueError(f"workers={count}: must be at least 1")
        self.workers = count
        self._measure = measure
        slots = iter(range(count))
        # A pool starts a thread at most `count` times, each with a slot of its own.
        self._pool = ThreadPoolExecutor(
            count, thread_name_prefix="evoscale-run", initializer=lambda: setattr(_place, "slot", next(slots))
        )
        self._futures: dict[str, Future[Outcome]] = {}
        self._lock = threading.Lock()

    def submit(self, spec: RunSpec, source: str | None = None) -> Future[Outcome]:
        """The future of `spec`'s outcome; the same future for the same key.

        A run whose worker was lost (its future raised or was cancelled) runs again when submitted again.

        Raises:
            RuntimeError: the executor is closed.
        """
        key = spec.key
        with self._lock:
            known = self._futures.get(key)
            if known is not None and not _lost(known):
                return known
            future = self._pool.submit(self._measure, spec, source)
            self._futures[key] = future
            return future

    def close(self) -> None:
        """Cancel what has not begun and wait for the rest."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _lost(future: Future[Outcome]) -> bool:
    return future.cancelled() or (future.done() and future.exception() is not None)

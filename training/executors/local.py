"""Runs on this machine: one thread waits for each worker process that measures.

The threads only block; the work happens wherever the injected `measure` puts it, normally in a
sandboxed process with one thread of its own. Two threads in one process are slower than two processes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from training.outcome import Outcome
from training.run_spec import RunSpec

Measure = Callable[[RunSpec, str | None], Outcome]


class LocalExecutor:
    """Measures up to `workers` specs at once, in the order they were submitted.

    Args:
        workers: how many at once; None takes one for every core this process may use.
        measure: blocking call from (spec, source) to the outcome.

    Raises:
        ValueError: `workers` below 1.
    """

    def __init__(self, workers: int | None, measure: Measure) -> None:
        count = len(os.sched_getaffinity(0)) if workers is None else workers
        if count < 1:
            raise ValueError(f"workers={count}: must be at least 1")
        self.workers = count
        self._measure = measure
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="evoscale-run")
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

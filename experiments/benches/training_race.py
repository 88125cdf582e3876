"""Trainers side by side: each does one step in turn, so that a busy machine slows all of them alike.

A contestant runs in a thread of its own and holds the floor for one step; the floor then goes to the next. Its CPU
time is its thread's own (`time.thread_time`), so what it loads, collates and checks is in it, and what the others do
is not. One thread of arithmetic each.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Contestant = Callable[[Callable[[], None]], None]
"""Trains, and calls what it is given after every step."""


@dataclass(kw_only=True)
class StepTimes:
    """CPU and wall seconds of each step of one contestant."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def median_cpu(self, skip: int) -> float:
        """Median CPU seconds of a step, the first `skip` left out."""
        return statistics.median(self.cpu[skip:])

    def median_wall(self, skip: int) -> float:
        """Median wall seconds of a step, the first `skip` left out."""
        return statistics.median(self.wall[skip:])


class Race:
    """Runs contestants a step at a time, in turn.

    Args:
        contestants: functions that train and call what they are given after every step; each must make `steps` calls.
        steps: steps of each.
        between: called after every round, with the floor free (the machine's peak is measured here).
    """

    def __init__(
        self,
        contestants: Sequence[Contestant],
        steps: int,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self.times = [StepTimes() for _ in contestants]
        self._contestants = contestants
        self._steps = steps
        self._between = between
        self._turn = [threading.Event() for _ in contestants]
        self._given_back = threading.Event()
        self._errors: list[BaseException] = []

    def run(self) -> list[StepTimes]:
        """Race to the end.

        Raises:
            Exception: whatever a contestant raised.
        """
        threads = [
            threading.Thread(target=self._compete, args=(index,), daemon=True) for index in range(len(self._turn))
        ]
        for thread in threads:
            thread.start()
        for _ in range(self._steps):
            for index in range(len(threads)):
                self._give(index)
            self._between()
        for index, thread in enumerate(threads):  # what a contestant does after its last step
            self._give(index)
            thread.join()
        return self.times

    def _give(self, index: int) -> None:
        self._given_back.clear()
        self._turn[index].set()
        self._given_back.wait()
        if self._errors:
            raise self._errors[0]

    def _compete(self, index: int) -> None:
        turn, times = self._turn[index], self.times[index]
        turn.wait()
        turn.clear()
        began = [time.thread_time(), time.perf_counter()]

        def after_step() -> None:
            times.cpu.append(time.thread_time() - began[0])
            times.wall.append(time.perf_counter() - began[1])
            self._given_back.set()
            turn.wait()
            turn.clear()
            began[:] = time.thread_time(), time.perf_counter()

        try:
            self._contestants[index](after_step)
        except BaseException as error:
            self._errors.append(error)
        self._given_back.set()

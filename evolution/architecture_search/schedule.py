"""Runs ASHA and PDH over architectures, the same with any number of workers.

ASHA's decisions depend on the order in which results come. Here that order is a virtual one: each job takes as long as
the steps it adds, on a fixed number of slots. Workers only decide how soon the real results are there; a result that
is early waits for its turn.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from evolution.architecture_search.asha import Asha, AshaJob
from evolution.architecture_search.measuring import StretchMeasurement, loss_of
from evolution.architecture_search.pdh import Pdh

if TYPE_CHECKING:
    from frameworks.architecture.schema import Architecture
    from training.outcome import Outcome


def run_asha(measurement: StretchMeasurement, members: Sequence[Architecture], horizon: int) -> Asha:
    """Breadth: ASHA over `members` to its end.

    Args:
        measurement: trains the stretches.
        members: the configurations, in the order in which they are started.
        horizon: length of the learning-rate schedule that all stretches share.

    Returns:
        The scheduler with all results.
    """
    settings = measurement.settings
    asha = Asha(
        members=len(members),
        min_steps=settings.asha_min_steps,
        max_steps=settings.asha_max_steps,
        eta=settings.asha_eta,
    )
    running: list[tuple[int, int, AshaJob, Future[Outcome]]] = []
    now = order = 0
    while True:
        while len(running) < settings.slots:
            job = asha.ask()
            if job is None:
                break
            architecture = members[job.member]
            spec = measurement.spec(architecture, stop_at=job.steps, horizon=horizon)
            if job.rung:
                _decided(measurement, architecture, "promoted by ASHA", job.rung, spec.key)
            before = asha.budgets[job.rung - 1] if job.rung else 0
            heapq.heappush(running, (now + job.steps - before, order, job, measurement.submit(architecture, spec)))
            order += 1
        if not running:
            return asha
        now, _, job, future = heapq.heappop(running)
        asha.tell(job, loss_of(future.result()))


def run_pdh(
    measurement: StretchMeasurement, members: Sequence[Architecture], pdh: Pdh, *, horizon: int, start: int = 0
) -> None:
    """Depth: every member trains the stages it has earned under the hurdles that stand; none is set here.

    Args:
        measurement: trains the stretches.
        members: the configurations.
        pdh: the scheduler; members are told by identity.
        horizon: length of the learning-rate schedule.
        start: steps the members were trained for before.
    """
    from frameworks.architecture.document import identity

    left = {identity(architecture): architecture for architecture in members}
    while True:
        work: list[tuple[str, Future[Outcome]]] = []
        for key, architecture in left.items():
            stage = pdh.next_stage(key)
            if stage is None:
                continue
            spec = measurement.spec(architecture, stop_at=start + pdh.steps_after(stage), horizon=horizon)
            if stage:
                _decided(measurement, architecture, "passed a hurdle", stage, spec.key)
            work.append((key, measurement.submit(architecture, spec)))
        if not work:
            return
        for key, future in work:
            pdh.tell(key, loss_of(future.result()))


def _decided(measurement: StretchMeasurement, architecture: Architecture, what: str, level: int, key: str) -> None:
    payload: dict[str, Any] = {"what": what, "reason": f"{architecture.name} enters level {level}", "level": level}
    measurement.ledger.record_once("decision", payload, f"{what}:{key}")

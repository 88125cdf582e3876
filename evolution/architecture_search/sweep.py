"""A sweep: ASHA for breadth over given architectures, PDH for depth over its best, a last long look at the top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evolution.architecture_search.asha import Asha
from evolution.architecture_search.measuring import StretchMeasurement, loss_of
from evolution.architecture_search.pareto import promoted
from evolution.architecture_search.pdh import Pdh
from evolution.architecture_search.schedule import run_asha, run_pdh
from evolution.architecture_search.table import Row, objectives, row_of
from evolution.architecture_search.workplace import register

if TYPE_CHECKING:
    from frameworks.architecture.schema import Architecture


def sweep(measurement: StretchMeasurement, members: Sequence[Architecture]) -> list[Row]:
    """Search among `members`.

    Args:
        measurement: trains.
        members: architectures of different identity.

    Returns:
        A row for each, at its furthest, best first: by depth of training, then loss.
    """
    from frameworks.architecture.document import identity

    settings = measurement.settings
    for architecture in members:
        register(measurement, architecture, {"kind": "given"})
    rungs = Asha(
        members=len(members),
        min_steps=settings.asha_min_steps,
        max_steps=settings.asha_max_steps,
        eta=settings.asha_eta,
    ).budgets
    stages = tuple([settings.pdh_steps] * settings.pdh_stages)
    horizon = rungs[-1] + sum(stages)
    asha = run_asha(measurement, members, horizon)
    level = max((rung for rung, results in enumerate(asha.results) if results), default=0)
    chosen = [
        members[member] for member in asha.ranking() if asha.results[level].get(member, float("inf")) < float("inf")
    ]
    pdh = Pdh(stages)
    if chosen:
        deepen(measurement, chosen, pdh, horizon=horizon, start=rungs[level])
    rows = _rows(measurement, members, asha, pdh, horizon, rungs[level])
    return deep_look(measurement, {identity(a): a for a in members}, rows)


def deepen(
    measurement: StretchMeasurement, members: Sequence[Architecture], pdh: Pdh, *, horizon: int, start: int
) -> None:
    """PDH over a fixed population: train what is earned, set the next hurdle, until none is left."""
    while True:
        run_pdh(measurement, members, pdh, horizon=horizon, start=start)
        if pdh.set_hurdle() is None:
            return


def _rows(
    measurement: StretchMeasurement,
    members: Sequence[Architecture],
    asha: Asha,
    pdh: Pdh,
    horizon: int,
    start: int,
) -> list[Row]:
    from frameworks.architecture.document import identity

    rows = []
    for number, architecture in enumerate(members):
        stops = [asha.budgets[rung] for rung, results in enumerate(asha.results) if number in results]
        stops += [start + pdh.steps_after(stage) for stage in range(len(pdh.losses.get(identity(architecture), [])))]
        rows.append(furthest_row(measurement, architecture, stops, horizon))
    return ranked(rows)


def furthest_row(
    measurement: StretchMeasurement, architecture: Architecture, stops: Sequence[int], horizon: int
) -> Row:
    """The row at the furthest of `stops` that completed; at the first where none did."""
    for stop in sorted(stops, reverse=True):
        spec = measurement.spec(architecture, stop_at=stop, horizon=horizon)
        outcome = measurement.submit(architecture, spec).result()
        if loss_of(outcome) is not None or stop == min(stops):
            return row_of(architecture, spec, outcome)
    raise ValueError(f"{architecture.name} was never started")


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Best first: who trained more steps before who trained fewer, then by loss; failures last."""
    return sorted(rows, key=lambda row: (row.loss is None, -row.steps, row.loss or 0.0, row.name))


def deep_look(measurement: StretchMeasurement, by_identity: dict[str, Architecture], rows: list[Row]) -> list[Row]:
    """Train the best of the Pareto front anew for the deep budget; they lead the table afterwards."""
    settings = measurement.settings
    if settings.deep_steps is None:
        return rows
    furthest = [row for row in rows if row.loss is not None and row.steps == rows[0].steps]
    leaders = [furthest[i] for i in promoted([objectives(row) for row in furthest], settings.deep_top_k)]
    leaders += [row for row in rows if row.loss is not None and row not in leaders][
        : settings.deep_top_k - len(leaders)
    ]
    work = []
    for row in leaders:
        architecture = by_identity[row.identity]
        spec = measurement.spec(architecture, stop_at=settings.deep_steps, horizon=settings.deep_steps, deep=True)
        work.append((architecture, spec, measurement.submit(architecture, spec)))
    deep = ranked([row_of(architecture, spec, future.result()) for architecture, spec, future in work])
    known = {row.identity for row in deep}
    return [*deep, *(row for row in rows if row.identity not in known)]

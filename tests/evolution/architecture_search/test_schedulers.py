"""ASHA and PDH as defined: golden traces, nothing twice, failures last, an exact step ledger, and a restart."""

from __future__ import annotations

import math

import pytest

from evolution.architecture_search.asha import Asha
from evolution.architecture_search.pareto import crowding, dominates, fronts, promoted
from evolution.architecture_search.pdh import Pdh


def drive(asha: Asha, losses: dict[int, float | None]) -> list[tuple[int, int]]:
    """One worker to the end; the trace of (member, rung)."""
    trace = []
    while (job := asha.ask()) is not None:
        trace.append((job.member, job.rung))
        loss = losses[job.member]
        asha.tell(job, None if loss is None else loss - 0.1 * job.rung)
    return trace


def test_asha_golden_trace_of_one_worker() -> None:
    asha = Asha(members=9, min_steps=10, max_steps=90, eta=3)
    assert asha.budgets == [10, 30, 90]
    losses = dict(enumerate([5.0, 3.0, 4.0, 1.0, 6.0, 7.0, 2.0, 8.0, 9.0]))
    # By hand: after three results the best, 1, goes up; 3 as soon as it leads four; 6 when the top is two of seven;
    # the best of three on rung 1, 3, goes to the top; of nine the top three are all promoted already.
    golden = [(0, 0), (1, 0), (2, 0), (1, 1), (3, 0), (3, 1), (4, 0), (5, 0), (6, 0), (6, 1), (3, 2), (7, 0), (8, 0)]
    assert drive(asha, dict(losses)) == golden
    assert asha.ranking()[0] == 3


def test_asha_never_promotes_a_failure_and_ranks_it_last() -> None:
    asha = Asha(members=4, min_steps=1, max_steps=4, eta=2)
    trace = drive(asha, {0: None, 1: math.nan, 2: 2.0, 3: 1.0})
    assert {member for member, rung in trace if rung} <= {2, 3}
    assert set(asha.ranking()[-2:]) == {0, 1}


def test_asha_refuses_a_second_result() -> None:
    asha = Asha(members=2, min_steps=1, max_steps=2, eta=2)
    job = asha.ask()
    assert job is not None
    asha.tell(job, 1.0)
    with pytest.raises(ValueError, match="already has a result"):
        asha.tell(job, 1.0)


@pytest.mark.parametrize("bad", [{"members": 0}, {"eta": 1}, {"max_steps": 0}, {"min_steps": 0}])
def test_asha_refuses_numbers_outside_their_range(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="needs members"):
        Asha(**({"members": 3, "min_steps": 1, "max_steps": 9, "eta": 3} | bad))


def test_pdh_step_ledger_is_exact() -> None:
    pdh = Pdh((10, 20, 30))
    for member, loss in {"a": 1.0, "b": 2.0, "c": 3.0, "d": None}.items():
        assert pdh.next_stage(member) == 0
        pdh.tell(member, loss)
        assert pdh.next_stage(member) is None
    assert pdh.set_hurdle() == pytest.approx(2.0)  # the failure is no number and is in no mean
    assert [pdh.next_stage(member) for member in "abcd"] == [1, None, None, None]
    pdh.tell("a", 0.5)
    assert pdh.set_hurdle() == pytest.approx(0.5)
    assert pdh.next_stage("a") is None  # not below its own mean
    pdh.tell("e", 1.5)
    pdh.tell("e", 0.4)
    assert pdh.next_stage("e") == 2
    pdh.tell("e", 0.3)
    assert pdh.set_hurdle() is None
    assert pdh.steps_spent() == 30 + 10 + 10 + 10 + 60
    assert pdh.ranking() == ["e", "a", "b", "c"]
    with pytest.raises(ValueError, match="no further stage"):
        pdh.tell("d", 1.0)


def test_hurdles_stand_once_set() -> None:
    pdh = Pdh((1, 1))
    pdh.tell("a", 4.0)
    pdh.set_hurdle()
    pdh.tell("b", 1.0)
    assert pdh.hurdles == [4.0]


def test_pareto() -> None:
    points = [(1.0, 4.0), (2.0, 2.0), (4.0, 1.0), (3.0, 3.0), (4.0, 4.0)]
    assert dominates((1.0, 1.0), (1.0, 2.0))
    assert not dominates((1.0, 1.0), (1.0, 1.0))
    assert fronts(points) == [[0, 1, 2], [3], [4]]
    alone = crowding(points, [0, 1, 2])
    assert alone[0] == alone[2] == math.inf
    assert alone[1] == pytest.approx(2.0)
    assert promoted(points, 4) == [0, 2, 1, 3]
    assert promoted([], 3) == []

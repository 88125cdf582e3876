"""Small runs of `evoscale bench verdicts` and `bench racing`, with a table and without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.learning_curves import write_curves
from experiments.benches import demo_curves, racing, verdicts
from experiments.benches.registry import Options
from experiments.benches.row import Row, targets_of
from tests.analysis.curve_tables import made_up_table


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for the table in place of the shipped one."""
    path = tmp_path / "curves.csv.gz"
    monkeypatch.setattr(demo_curves, "DEMO_CURVES", path)
    demo_curves.demo_curves.cache_clear()
    yield path  # type: ignore[misc]
    demo_curves.demo_curves.cache_clear()


def rows_of(name: str, quick: bool = True) -> dict[str, Row]:
    measure = {"verdicts": verdicts.measure, "racing": racing.measure}[name]
    return {row.name: row for row in measure(Options(quick=quick), targets_of(name))}


def test_every_target_has_its_row(table: Path) -> None:
    write_curves(made_up_table(31), table)
    for name in ("verdicts", "racing"):
        rows = rows_of(name)
        assert set(targets_of(name).names) <= set(rows)
        if name == "racing":
            assert all(row.holds for row in rows.values()), [row for row in rows.values() if not row.holds]
        else:
            assert rows["power at d_z = 1 with 10 seeds, distance from theory"].value is not None
            assert rows["one scaling fit, median"].holds


def test_without_a_table_the_command_that_makes_it_is_named_and_nothing_holds(table: Path) -> None:
    found = next(iter(verdicts.measure(Options(quick=True), targets_of("verdicts"))))
    (raced,) = rows_of("racing").values()
    for row in (found, raced):
        assert not row.holds
        assert row.value is None
        assert "evoscale curves" in row.unit


def test_a_small_table_falls_short(table: Path) -> None:
    write_curves(made_up_table(5), table)
    assert not rows_of("racing")["candidates in the table"].holds

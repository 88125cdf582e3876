"""A calibration speaks about runs of its set-up: a misranked control withholds their verdicts wherever shown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from analysis.promotion import PromotionPlan
from analysis.report import report_html
from analysis.report_data import ReportData
from evolution.calibration_record import controls_beside, withhold
from evolution.ledger import Ledger
from evolution.session import LEDGER_NAME
from experiments.cli import app

CONFIG: dict[str, Any] = {
    "framework": "coefficient_dynamics",
    "confirmation": {"seeds": 6, "shortlist": 2, "alpha": 0.01, "least_effect": 0.01},
    "proposer": {"kind": "catalogue"},
}
MANIFEST: dict[str, Any] = {
    "kind": "evolve",
    "config": CONFIG,
    "ladder": {"name": "demo", "sizes": [], "unseen": None},
    "corpus": {"hash": "c0ffee"},
    "reference": "ref",
    "proposer": "operator catalogue",
}
PROMOTED = {
    "plan": "p",
    "candidate": "abc",
    "decision": "promoted",
    "sentence": "Promoted: it is better.",
    "evidence": {"mean_difference": -0.05, "low": -0.06, "high": -0.04},
}


@dataclass(frozen=True)
class Ended:
    sentence: str
    verdicts: tuple[Any, ...]


def ledger_in(folder: Path, manifest: dict[str, Any]) -> Ledger:
    folder.mkdir(parents=True)
    ledger = Ledger.open(folder / LEDGER_NAME, create=True)
    ledger.record("run_started", manifest)
    return ledger


def calibration(folder: Path, found: str, **changes: Any) -> None:
    with ledger_in(folder, MANIFEST | {"kind": "calibrate"} | changes) as ledger:
        row = {"name": "null_dynamics", "expected": "not promoted", "found": found, "holds": found == "not promoted"}
        ledger.record("calibration", {"results": [row]})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with one promoted candidate."""
    with ledger_in(tmp_path / "run", MANIFEST) as ledger:
        plan = PromotionPlan(shortlist=("abc",), reference="ref", sizes=("d32",), seeds=(20_000, 20_001))
        declared = ledger.declare_plan(plan.to_json())
        ledger.open_seal(declared)
        ledger.record("verdict", PROMOTED | {"plan": declared}, key=f"{declared}:abc")
    return tmp_path / "run"


def shown(run: Path) -> str:
    done = CliRunner().invoke(app, ["report", str(run)])
    assert done.exit_code == 0, done.output
    return done.stdout + (run / "report.html").read_text(encoding="utf-8")


def test_without_a_calibration_the_verdict_stands(run: Path) -> None:
    assert "Promoted: it is better." in shown(run)
    assert controls_beside(run, MANIFEST) == []


def test_a_misranked_null_withholds_the_verdict_in_terminal_report_and_result(run: Path, tmp_path: Path) -> None:
    calibration(tmp_path / "calibrate", "promoted")
    text = shown(run)
    assert "Verdict withheld" in text
    assert "null_dynamics was promoted instead of not promoted" in text
    assert "Promoted: it is better." not in text
    result = withhold(Ended("Promoted: it is better.", (PROMOTED,)), run)
    assert result.sentence.startswith("Verdict withheld")
    assert [verdict["decision"] for verdict in result.verdicts] == ["withheld"]
    assert result.verdicts[0]["evidence"] == PROMOTED["evidence"]


def test_a_calibration_that_passes_is_shown_and_withholds_nothing(run: Path, tmp_path: Path) -> None:
    calibration(tmp_path / "calibrate", "not promoted")
    text = shown(run)
    assert "Promoted: it is better." in text
    assert "null_dynamics" in text


def test_the_newest_calibration_counts(run: Path, tmp_path: Path) -> None:
    calibration(tmp_path / "a-calibrate", "promoted")
    calibration(tmp_path / "b-calibrate", "not promoted")
    assert "Promoted: it is better." in shown(run)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "evolve"},
        {"corpus": {"hash": "other"}},
        {"ladder": {"name": "laptop", "sizes": [], "unseen": None}},
        {"config": CONFIG | {"framework": "matrix_mixer"}},
        {"config": CONFIG | {"confirmation": {**CONFIG["confirmation"], "alpha": 0.05}}},
    ],
)
def test_a_calibration_of_another_set_up_says_nothing(run: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    calibration(tmp_path / "calibrate", "promoted", **changes)
    assert controls_beside(run, MANIFEST) == []


def test_a_damaged_ledger_beside_the_run_is_passed_over(run: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / LEDGER_NAME).write_bytes(b"no database")
    assert controls_beside(run, MANIFEST) == []


def test_the_page_says_it_first() -> None:
    data = ReportData(title="t", name="n", framework="f", reference="r", verdicts=[PROMOTED])
    wrong = replace(data, controls=[{"name": "null", "expected": "not promoted", "found": "promoted", "holds": False}])
    page = report_html(wrong)
    assert page.index("Verdict withheld") < page.index("<nav")
    assert "Verdict withheld" not in report_html(data)

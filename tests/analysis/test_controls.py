"""Controls: expected, misranked and not evaluated are three things."""

from __future__ import annotations

import pytest

from analysis.controls import control_report

ROWS = [
    {"control": "rewrite", "expected": "not promoted", "decision": "not promoted"},
    {"control": "convolution", "expected": "promoted", "decision": "promoted"},
    {"control": "sprinter", "expected": ["not promoted", "undecided"], "decision": "undecided"},
    {"control": "leak", "expected": "rejected", "decision": "rejected"},
]


def test_all_as_expected():
    report = control_report(ROWS)
    assert report.passed
    assert report.as_expected == ("rewrite", "convolution", "sprinter", "leak")
    assert report.sentence == "4 of 4 controls got the expected verdict."


def test_a_misranked_control_is_named_with_both_verdicts():
    rows = [*ROWS[:3], {**ROWS[3], "decision": "promoted", "sentence": "Promoted: because."}]
    report = control_report(rows)
    assert not report.passed
    (wrong,) = report.misranked
    assert (wrong.control, wrong.expected, wrong.decision) == ("leak", ("rejected",), "promoted")
    assert wrong.sentence == "Promoted: because."
    assert "leak was promoted, not rejected" in report.sentence


def test_not_evaluated_is_neither_passed_nor_misranked():
    report = control_report([*ROWS[:3], {**ROWS[3], "decision": None}])
    assert (report.passed, report.misranked, report.not_evaluated) == (False, (), ("leak",))
    assert report.sentence.endswith("not evaluated: leak.")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "there is no control"),
        ([ROWS[0], ROWS[0]], "'rewrite' is given twice"),
        ([{"control": "x", "expected": "promoted"}], "lacks 'decision'"),
        ([{**ROWS[0], "expected": "promotd"}], "unknown decision 'promotd'; did you mean 'promoted'"),
        ([{**ROWS[0], "decision": "passed"}], "unknown decision 'passed'"),
        ([{**ROWS[0], "expected": []}], "expects no decision"),
    ],
)
def test_bad_rows_are_errors(rows, message):
    with pytest.raises(ValueError, match=message):
        control_report(rows)

"""What a calibration found, kept for the runs of the same set-up: a machine that misranks its controls is not believed.

`evoscale calibrate` records how every control ended. A run's report looks for calibrations of the
same set-up (framework, ladder, corpus, confirmation settings) among the runs beside it. A misranked control in
the newest of them stands at the top of the report, and the run's verdicts are withheld until
a calibration of that set-up passes. Without a calibration nothing is withheld, and the report says nothing of controls.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from evolution.calibrating import ControlResult
    from evolution.ledger import Ledger

Row = dict[str, Any]
ResultT = TypeVar("ResultT", bound=Any)


def record_calibration(ledger: Ledger, results: Sequence[ControlResult]) -> None:
    """Put on record how every control ended; the newest record counts."""
    rows = [
        {"name": result.name, "expected": result.expected, "found": result.concluded, "holds": result.right}
        for result in results
    ]
    ledger.record("calibration", {"results": rows})


def set_up_of(manifest: Mapping[str, Any]) -> str:
    """What a calibration and a run must share for the one to speak about the other, as canonical JSON."""
    config = manifest["config"]
    confirmation = {key: value for key, value in config["confirmation"].items() if key != "shortlist"}
    shared = {
        "framework": config["framework"],
        "ladder": manifest["ladder"],
        "corpus": manifest["corpus"]["hash"],
        "confirmation": confirmation,
    }
    return json.dumps(shared, sort_keys=True)


def controls_beside(directory: Path, manifest: Mapping[str, Any]) -> list[Row]:
    """Rows `name`, `expected`, `found`, `holds` of the newest calibration of this set-up beside a run's folder.

    A folder that holds no readable ledger is passed over: it says nothing about this set-up.
    """
    from evolution.ledger import Ledger, LedgerError
    from evolution.session import LEDGER_NAME

    if "corpus" not in manifest or "ladder" not in manifest:
        return []
    wanted, newest, found = set_up_of(manifest), -1.0, []
    for path in sorted(directory.parent.glob(f"*/{LEDGER_NAME}")):
        try:
            with Ledger.open(path, read_only=True) as ledger:
                started = ledger.events("run_started", limit=1)
                if not started or started[0].payload.get("kind") != "calibrate":
                    continue
                events = ledger.events("calibration")
                if events and set_up_of(started[0].payload) == wanted and events[-1].time > newest:
                    newest, found = events[-1].time, [dict(row) for row in events[-1].payload["results"]]
        except (LedgerError, OSError, KeyError):
            continue
    return found


def misranked_of(controls: Sequence[Mapping[str, Any]]) -> list[str]:
    """The controls that did not end as they must, in words."""
    return [
        f"{row['name']} was {row['found']} instead of {row['expected']}" for row in controls if row["holds"] is False
    ]


def withheld_sentence(misranked: Sequence[str]) -> str:
    """Why a verdict is withheld."""
    return f"Verdict withheld: in the calibration of this set-up the control {'; '.join(misranked)}."


def withhold(result: ResultT, directory: Path) -> ResultT:
    """A run's result, withheld where the newest calibration of its set-up misranked a control.

    Args:
        result: a frozen dataclass with `sentence` and `verdicts`.
        directory: the run's folder.
    """
    from evolution.ledger import Ledger
    from evolution.session import LEDGER_NAME

    with Ledger.open(directory / LEDGER_NAME, read_only=True) as ledger:
        manifest = ledger.events("run_started", limit=1)[0].payload
    misranked = misranked_of(controls_beside(directory, manifest))
    if not misranked or not result.verdicts:
        return result
    sentence = withheld_sentence(misranked)
    verdicts = tuple(withheld_verdict(verdict, sentence) for verdict in result.verdicts)
    withheld: ResultT = dataclasses.replace(result, sentence=sentence, verdicts=verdicts)
    return withheld


def withheld_verdict(verdict: Mapping[str, Any], sentence: str) -> Row:
    """The verdict with its decision withheld; the evidence stays for whoever looks for the fault."""
    return {**verdict, "decision": "withheld", "sentence": sentence}

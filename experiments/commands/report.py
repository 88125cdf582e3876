"""`evoscale report RUN`: write a run's report again from its ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="A run's folder, such as runs/demo.")],
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write RUN/report.html from its ledger, also while the run goes on, and print its verdicts."""
    from evolution.config import ConfigError
    from evolution.ledger import Ledger
    from evolution.projection import report_of_run, verdicts_to_show
    from evolution.session import LEDGER_NAME

    path = run / LEDGER_NAME
    if not path.is_file():
        raise ConfigError(f"{run} is not a run: it has no {LEDGER_NAME}; runs are folders such as runs/demo")
    with Ledger.open(path, read_only=True) as ledger:
        written = report_of_run(ledger, run)
        verdicts = verdicts_to_show(ledger, run)
    if json_output:
        print(json.dumps({"report": str(written), "verdicts": [dict(verdict) for verdict in verdicts]}))
        return
    for verdict in verdicts:
        print(f"{verdict['decision']}  {str(verdict['candidate'])[:12]}  {verdict['sentence']}")
    if not verdicts:
        print("no verdict yet")
    print(f"report: {written}")

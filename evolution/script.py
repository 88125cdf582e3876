"""The body of the `evolve_*.py` scripts: one framework, its configuration file, `a.b=c` arguments."""

from __future__ import annotations

import sys
from pathlib import Path

from evolution.config import load_config
from evolution.session import evolve

RUNS = Path("runs")


def run_script(framework: str, arguments: list[str] | None = None) -> None:
    """Evolve `framework` with its `config_*.yaml`; exits with status 2 and one sentence on a bad setting."""
    from evolution.ledger import LedgerError
    from evolution.measurement import MeasurementError
    from evolution.sandbox import SandboxUnavailable

    settings = sys.argv[1:] if arguments is None else arguments
    path = Path(__file__).with_name(f"config_{framework}.yaml")
    command = ["evolve", framework, "--config", str(path)]
    for setting in settings:
        command += ["--set", setting]
    try:
        config = load_config(path, settings)
        result = evolve(config, RUNS, arguments=command, listener=_say)
    except (ValueError, OSError, LedgerError, MeasurementError, SandboxUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(result.sentence)


def _say(event: str, payload: object) -> None:
    if event == "report" and isinstance(payload, dict):
        print(f"report: {payload['path']}")

"""The body of the `evolve_*.py` scripts: one framework, its configuration file, `a.b=c` arguments."""

from __future__ import annotations

import sys
from pathlib import Path

from evolution.config import load_config
from evolution.session import evolve


def run_script(framework: str, arguments: list[str] | None = None) -> None:
    """Evolve `framework` with its `config_*.yaml`; exits with status 2 and one sentence on a bad setting."""
    settings = sys.argv[1:] if arguments is None else arguments
    path = Path(__file__).with_name(f"config_{framework}.yaml")
    command = ["evolve", framework, "--config", str(path)]
    for setting in settings:
        command += ["--set", setting]
    try:
        result = evolve(load_config(path, settings), Path("runs"), arguments=command)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(result.sentence)

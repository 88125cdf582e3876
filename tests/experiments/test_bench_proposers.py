"""A small run of the benches of proposers and orchestration."""

from __future__ import annotations

import importlib.util
import json

import pytest
from typer.testing import CliRunner

from evolution.proposers.local_model import EMBEDDED_PACKAGE
from experiments.benches.row import targets_of
from experiments.cli import app

has_model = importlib.util.find_spec("xllamacpp") is not None and importlib.util.find_spec(EMBEDDED_PACKAGE) is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("proposers", marks=pytest.mark.skipif(not has_model, reason="no embedded model: make local-llm")),
        "orchestration",
    ],
)
def test_a_small_run_has_the_rows_that_have_targets(name: str) -> None:
    done = CliRunner().invoke(app, ["bench", name, "--quick", "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    rows = {row["name"]: row for row in json.loads(done.stdout.splitlines()[-1])["rows"]}
    whole = {"iterations of the embedded LLM, to a report with its rates", "the last iteration"}
    assert set(targets_of(name).names) - whole <= set(rows)
    timed = {"an iteration at iteration 50", "an iteration at the last against that"}  # a busy machine decides those
    assert [row for label, row in rows.items() if not row["holds"] and label not in timed] == []

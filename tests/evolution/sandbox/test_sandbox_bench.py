"""The bench of the sandbox runs and says what holds."""

from __future__ import annotations

import pytest

from evolution.sandbox.bench import SANDBOX_TARGETS, bench_sandbox


@pytest.mark.slow
def test_the_bench_measures_every_promise(needs_namespaces):
    rows = bench_sandbox({**SANDBOX_TARGETS, "cold start of the warm parent": 0.0}, calls=5)
    assert [row["name"] for row in rows] == list(SANDBOX_TARGETS)
    assert all(row["value"] is not None for row in rows)
    assert {"name": rows[0]["name"], "holds": rows[0]["holds"]} == {
        "name": "cold start of the warm parent",
        "holds": False,
    }
    left = next(row for row in rows if row["name"] == "processes alive after a fork bomb")
    assert left["value"] == 0
    assert left["holds"]

"""The Markdown form of a bench's rows."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from experiments.benches.row import Row
from experiments.benches.table import markdown_table
from experiments.cli import app

ROWS = [
    Row(name="a | b", value=0.123456, unit="s", target=0.2, holds=True, rule="at_most"),
    Row(name="<c>", value=None, unit="", target="rejected", holds=False, rule="is"),
]


def test_every_row_is_a_row_and_no_cell_breaks_the_table() -> None:
    text = markdown_table("guards", "every cheat is rejected", "a machine", ROWS)
    lines = text.splitlines()
    assert lines[0] == "# `evoscale bench guards`"
    assert "1 of 2 rows fall short: <c>." in text
    assert lines[-2] == "| a \\| b | 0.1235 s | at most 0.2 | yes |"
    assert lines[-1] == "| &lt;c> | not measured | rejected | **no** |"


def test_a_table_in_a_missing_folder_is_a_mistake(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "guards", "--table", str(tmp_path / "absent" / "table.md")])
    assert isinstance(done.exception, FileNotFoundError)
    assert "--table" in str(done.exception)
    assert not list(tmp_path.iterdir())

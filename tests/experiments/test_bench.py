"""`evoscale bench`: the listing, mistakes, the shape of its rows, and a small run of each bench."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evolution.sandbox import sandbox_ability
from evolution.sandbox.bench import quietest_median
from experiments.benches.faulty_endpoint import ENDPOINT_FAULTS
from experiments.benches.hostile_blocks import HOSTILE_BLOCKS, QUICK
from experiments.benches.program_folder import NoProgramError, RefusedProgramError, program_files
from experiments.benches.registry import Options, UnknownNameError, UnusableOptionError, bench, benches
from experiments.benches.row import TargetError, Targets, targets_of
from experiments.cli import app
from frameworks.attention.controls.registry import control
from frameworks.registry import framework, frameworks

ROOT = Path(__file__).parents[2]
needs_namespaces = pytest.mark.skipif(not sandbox_ability().namespaces, reason=sandbox_ability().reason)


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "experiments.cli", "bench", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def measured(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit status and JSON of a bench run in this process."""
    done = CliRunner().invoke(app, ["bench", *arguments, "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, json.loads(done.stdout.splitlines()[-1])


def test_without_a_name_every_bench_is_listed_with_its_promise() -> None:
    done = CliRunner().invoke(app, ["bench"])
    assert done.exit_code == 0
    for entry in benches().values():
        assert f"{entry.name} " in done.stdout
        assert entry.promises in done.stdout
    listed = json.loads(CliRunner().invoke(app, ["bench", "--json"]).stdout)
    assert [row["bench"] for row in listed] == list(benches())


def test_listing_imports_no_torch() -> None:
    probe = (
        "import sys; from typer.testing import CliRunner; from experiments.cli import app;"
        "CliRunner().invoke(app, ['bench']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["fualts"], ["unknown bench 'fualts'", "'faults'"]),
        (["sandbox", "--programs", "."], ["bench 'sandbox' does not read --programs"]),
        (["guards", "--programs", "absent"], ["--programs absent", "no such folder"]),
        (["guards", "--programs", "."], ["--programs .", "the folder holds no file"]),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(arguments: list[str], parts: list[str], tmp_path: Path) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr


def test_names_are_helped_in_code_too() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'guards'"):
        bench("gaurds")
    with pytest.raises(UnusableOptionError):
        list(bench("faults").run(Options(workers=2)))


@pytest.mark.parametrize(
    ("rule", "value", "holds"),
    [
        ({"at_most": 2}, 2, True),
        ({"at_most": 2}, 2.1, False),
        ({"at_most": 2}, float("nan"), False),
        ({"at_most": 2}, None, False),
        ({"at_most": 2}, "fast", False),
        ({"at_least": 1.0}, 1.0, True),
        ({"at_least": 1.0}, 0.99, False),
        ({"is": "rejected"}, "rejected", True),
        ({"is": "rejected"}, "accepted", False),
    ],
)
def test_a_row_holds_as_its_target_says(rule: dict[str, Any], value: Any, holds: bool) -> None:
    targets = Targets("b", {"r": rule})
    row = targets.row("r", value, "s")
    assert row.holds is holds
    assert row.target == next(iter(rule.values()))
    assert set(row.to_json()) == {"name", "value", "unit", "target", "holds"}
    assert targets.row("r", value, "s", holds=False).holds is False
    assert targets.row("another", 1, "s").holds is True


@pytest.mark.parametrize(
    "rows", [{"r": 3}, {"r": {"below": 3}}, {"r": {"at_most": "x"}}, {"r": {"at_most": 1, "is": 2}}]
)
def test_a_target_that_is_none_is_an_error(rows: Any) -> None:
    with pytest.raises(TargetError, match="b: r"):
        Targets("b", rows)


def test_every_fault_has_a_target_and_every_target_a_fault() -> None:
    faults = [fault.name for fault in HOSTILE_BLOCKS] + [fault.name for fault in ENDPOINT_FAULTS]
    assert targets_of("faults").names[: len(faults)] == faults
    assert len(faults) >= 24
    assert set(QUICK) <= set(faults)


def test_every_poison_is_in_its_block_and_makes_another_program() -> None:
    found = framework("coefficient_dynamics")
    fill = {"CORPUS": "/c", "OUTSIDE": "/o", "PORT": "1", "TERCES": "s", "MARK": "3600.1"}
    programs = {fault.name: found.program(fault.block(found, fill)) for fault in HOSTILE_BLOCKS}
    identities = {program.identity for program in programs.values()} | {found.program().identity}
    assert len(identities) == len(HOSTILE_BLOCKS) + 1
    assert not any("@" in fault.words(fill) for fault in HOSTILE_BLOCKS)


def test_the_quietest_burst_counts() -> None:
    assert quietest_median([9.0] * 10 + [1.0] * 10 + [5.0] * 9) == 1.0
    assert quietest_median([3.0, 4.0, 5.0]) == 4.0


@needs_namespaces
def test_a_quick_faults_run_holds() -> None:
    status, printed = measured("faults", "--quick")
    assert [row for row in printed["rows"] if not row["holds"]] == []
    assert status == 0
    assert printed["bench"] == "faults"
    assert "cores" in printed["machine"]
    assert {row["name"] for row in printed["rows"]} >= set(QUICK)
    for row in printed["rows"]:
        assert set(row) == {"name", "value", "unit", "target", "holds"}


@pytest.mark.slow
@needs_namespaces
def test_a_quick_sandbox_run_measures_every_promise() -> None:
    status, printed = measured("sandbox", "--quick")
    rows = {row["name"]: row for row in printed["rows"]}
    assert set(targets_of("sandbox").names) <= set(rows)
    assert all(row["value"] is not None for row in rows.values())
    assert rows["processes alive after a fork bomb"]["value"] == 0
    assert status == (0 if all(row["holds"] for row in rows.values()) else 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cheat, an honest program and files that are no programs."""
    (tmp_path / "honest").mkdir()
    (tmp_path / "honest" / "scaled.py").write_text(control("null_mixer").program().source)
    (tmp_path / "cheat_peek.py").write_text(control("block_summary").program().source)
    (tmp_path / "cheat_none.py").write_text(control("null_mixer").program().source)  # the same program again
    (tmp_path / "honest" / "none.py").write_text("nothing here\n")
    (tmp_path / "notes.py").write_text("x = 1\n")
    (tmp_path / "picture.py").write_bytes(b"\x89PNG\xff\xfe")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "honest.pyc").write_bytes(b"\0")
    return tmp_path


@needs_namespaces
def test_a_folder_of_programs_is_judged_by_its_names(folder: Path) -> None:
    status, printed = measured("guards", "--quick", "--programs", str(folder))
    rows = {row["name"]: row for row in printed["rows"]}
    assert rows["cheat_peek.py"]["value"].startswith("rejected by ")
    assert rows["honest/scaled.py"]["value"] == "passed"
    for name in ("notes.py", "picture.py"):
        assert rows[name]["value"].startswith("no program")
        assert rows[name]["target"] is None
        assert rows[name]["holds"]
    assert rows["cheats rejected"]["value"] == 1.0
    assert rows["cheats rejected, lower end of the 95 % Wilson interval"]["value"] == pytest.approx(0.2065, abs=1e-3)
    assert rows["honest programs rejected in the folder"]["value"] == 0.0
    assert not any("pyc" in name for name in rows)
    assert status == 1  # for the names that promise what is not so
    short = {name for name, row in rows.items() if not row["holds"]}
    assert short == {"cheat_none.py", "honest/none.py", "cheats rejected in the folder"}


def test_the_framework_is_recognised_by_its_block_class(tmp_path: Path) -> None:
    for name, entry in frameworks().items():
        (tmp_path / f"{name}.py").write_text(entry.pristine)
    found = {file.name: file.program() for file in program_files(tmp_path)}
    assert {name: pair[0].name for name, pair in found.items()} == {f"{name}.py": name for name in frameworks()}
    assert {name: pair[1].identity for name, pair in found.items()} == {
        f"{name}.py": entry.program().identity for name, entry in frameworks().items()
    }


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda text: text.replace("# EVOLVE-BLOCK-END", ""), RefusedProgramError),
        (lambda text: text.replace("def forward(self", "def forward(self self"), RefusedProgramError),
        (lambda text: text + "\nMatrix = None\nprint(1)\n", RefusedProgramError),
        (lambda text: "", NoProgramError),
        (lambda text: "(" * 10_000, NoProgramError),
        (lambda text: "x = '\x00'", NoProgramError),
    ],
)
def test_a_file_that_cannot_become_a_candidate_says_why(tmp_path: Path, change: Any, error: type[Exception]) -> None:
    (tmp_path / "one.py").write_text(change(framework("matrix_mixer").pristine))
    (file,) = program_files(tmp_path)
    with pytest.raises(error):
        file.program()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("cheat_1.py", "rejected"),
        ("leak.py", "rejected"),
        ("cheats/one.py", "rejected"),
        ("honest/one.py", "passed"),
        ("honest/cheat_two.py", "rejected"),
        ("other/one.py", None),
        ("dishonest.py", None),
    ],
)
def test_names_set_the_expectation(tmp_path: Path, path: str, expected: str | None) -> None:
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text("x")
    (file,) = program_files(tmp_path)
    assert (file.name, file.expected) == (path, expected)

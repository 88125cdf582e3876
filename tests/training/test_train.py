"""The command: both spellings, history, resume, and an answer to every mistake."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from frameworks.registry import framework
from training.train import EXIT_INTERRUPTED, main

TINY = [
    *("--corpus", "stories", "--vocab-size", "300", "--max-bytes", "100000"),
    *("--d-model", "16", "--num-layers", "1", "--num-heads", "2", "--batch-size", "2", "--seq-len", "16"),
    *("--eval-tokens", "160", "--device", "cpu"),
]


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOSCALE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def _history(directory: Path) -> dict[str, object]:
    return json.loads((directory / "history.json").read_text())  # type: ignore[no-any-return]


def test_the_documented_command_in_either_spelling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dashes = ["--framework", "matrix_mixer", "--variant", "standard", "--max-steps", "20", "--eval-frequency", "10"]
    underscores = [
        argument.replace("max-steps", "max_steps").replace("eval-frequency", "eval_frequency") for argument in dashes
    ]
    assert main([*dashes, "--output-dir", str(tmp_path / "a"), *TINY]) == 0
    said = capsys.readouterr()
    assert "validation loss of" in said.out
    assert "loss" in said.err
    assert "tokens/s" in said.err
    assert main([*underscores, f"--output_dir={tmp_path / 'b'}", *TINY]) == 0
    one, other = _history(tmp_path / "a"), _history(tmp_path / "b")
    assert one["key"] == other["key"]
    assert one["curve"] == other["curve"]
    assert [row["step"] for row in one["curve"]] == [10, 20]  # type: ignore[attr-defined]
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        *("step_00000010.ckpt", "step_00000020.ckpt", "latest.ckpt", "history.json")
    }


def test_every_option_reaches_the_spec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {
        "--framework": "test_time_regression",
        "--variant": "evolvable",
        "--max-steps": "8",
        "--eval-frequency": "4",
        "--learning-rate": "0.02",
        "--warmup-steps": "3",
        "--schedule": "constant",
        "--weight-decay": "0.05",
        "--clip": "0.5",
        "--seed": "43",
        "--precision": "fp32",
        "--checkpoint-frequency": "2",
        "--keep-checkpoints": "3",
        "--threads": "1",
        "--output-dir": str(tmp_path),
    }
    assert main([*TINY, *(part for pair in options.items() for part in pair), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["status"] == "completed"
    spec = _history(tmp_path)["spec"]
    expected = {
        "framework": "test_time_regression",
        "candidate": "evolvable",
        "steps": 8,
        "eval_every": 4,
        "learning_rate": 0.02,
        "warmup_fraction": 3 / 8,
        "schedule": "constant",
        "weight_decay": 0.05,
        "clip": 0.5,
        "seed": 43,
        "precision": "fp32",
        "d_model": 16,
        "n_layers": 1,
        "n_heads": 2,
        "batch_size": 2,
        "seq_len": 16,
        "vocab_size": 300,
        "eval_tokens": 160,
        "device_kind": "cpu",
    }
    assert {name: spec[name] for name in expected} == expected  # type: ignore[index]
    assert len(list(tmp_path.glob("step_*.ckpt"))) == 3


def test_a_program_file(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(framework("matrix_mixer").pristine.replace("return q, k, v", "return q, k, 2 * v"))
    assert (
        main(["--program", str(program), "--max-steps", "3", "--output-dir", str(tmp_path / "run"), "--json", *TINY])
        == 0
    )
    spec = _history(tmp_path / "run")["spec"]
    identity = framework("matrix_mixer").program_from_source(program.read_text()).identity
    assert spec["candidate"] == identity  # type: ignore[index]


def test_interrupted_and_given_again_it_ends_as_if_nothing_was(tmp_path: Path) -> None:
    arguments = ["--max-steps", "800", "--eval-frequency", "400", *TINY, "--json"]
    command = [sys.executable, "-m", "training.train", *arguments, "--checkpoint-frequency", "20"]
    stopped = tmp_path / "stopped"
    child = subprocess.Popen([*command, "--output-dir", str(stopped)], env=os.environ)
    while not (stopped / "latest.ckpt").exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    assert child.wait(30) == EXIT_INTERRUPTED
    assert main([*arguments, "--output-dir", str(stopped)]) == 0
    assert main([*arguments, "--output-dir", str(tmp_path / "whole")]) == 0
    assert _history(stopped)["curve"] == _history(tmp_path / "whole")["curve"]


def test_a_damaged_checkpoint_is_told_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--max-steps", "20", "--eval-frequency", "10", "--output-dir", str(tmp_path), *TINY]
    assert main(command) == 0
    whole = _history(tmp_path)["curve"]
    os.truncate(tmp_path / "step_00000020.ckpt", 100)
    capsys.readouterr()
    assert main(command) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert "step_00000020.ckpt (100 bytes) is truncated or altered" in warnings[0]
    assert _history(tmp_path)["curve"] == whole


def test_a_run_that_diverges_does_not_exit_with_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--max-steps", "500", "--learning-rate", "50", "--output-dir", str(tmp_path), *TINY]
    assert main(arguments) == 1
    assert "diverged at step" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-step", "3"], "unknown option --max-step; did you mean --max-steps?"),
        (["--max-steps", "0"], "argument --max-steps: '0' is not a whole number above 0"),
        (["--max-steps", "many"], "argument --max-steps: 'many' is not a whole number above 0"),
        (["--keep-checkpoints", "1"], "--keep-checkpoints 1: at least 2"),
        (["--schedule", "linear"], "invalid choice: 'linear'"),
    ],
)
def test_options_that_are_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--output-dir", str(tmp_path / "run")])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-heads", "3"], "n_heads=3 does not divide d_model=16"),
        (["--learning-rate", "-1"], "--learning-rate -1.0: Input should be greater than 0"),
        (["--warmup-steps", "11"], "--warmup-steps 11 is outside 0..10 (--max-steps)"),
        (["--seed", "10000"], "seed 10000 is outside 0..9999"),
        (["--framework", "matrix_mixr"], "did you mean 'matrix_mixer'"),
        (["--variant", "standrd"], "did you mean 'standard'"),
        (["--program", "/nowhere/program.py"], "/nowhere/program.py"),
        (["--corpus", "storys"], "storys"),
        (["--eval-tokens", "5"], "eval_tokens=5 holds no window"),
    ],
)
def test_values_that_are_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([*TINY, "--max-steps", "10", *arguments, "--output-dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_another_runs_directory_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*TINY, "--output-dir", str(tmp_path), "--max-steps"]
    assert main([*command, "4"]) == 0
    capsys.readouterr()
    assert main([*command, "5"]) == 2
    assert "another run, with steps 4 (now 5)" in capsys.readouterr().err


def test_help_does_not_import_torch() -> None:
    code = "import sys, training.train as t\ntry: t.main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "--max-steps" in done.stdout

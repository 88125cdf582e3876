"""The command line as a person meets it: help, mistakes in one sentence with status 2, nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OPENAI_")}
    return subprocess.run(
        [sys.executable, "-m", "experiments.cli", *arguments],
        cwd=cwd,
        env=clean | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@contextmanager
def endpoint(status: int, body: dict[str, object]) -> Iterator[str]:
    """A loopback endpoint that answers every request alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def test_help_lists_the_commands_without_importing_torch(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    for command in ("evolve", "train", "calibrate", "report", "doctor"):
        assert command in done.stdout
    probe = "import sys, experiments.cli; print('torch' in sys.modules, 'openevolve' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["evolve", "coeficient_dynamics"], ["unknown framework 'coeficient_dynamics'", "'coefficient_dynamics'"]),
        (["evolve", "matrix_mixer", "--set", "confirmation.sedes=3"], ["unknown key", "'seeds'"]),
        (["evolve", "matrix_mixer", "--ladder", "dmo"], ["unknown ladder 'dmo'", "'demo'"]),
        (["evolve", "matrix_mixer", "--config", "absent.yaml"], ["absent.yaml", "no such file"]),
        (["evolve", "matrix_mixer", "--corpus", "absent.txt"], ["absent.txt"]),
        (["evolve", "matrix_mixer", "--corpus", "empty.txt"], ["empty.txt", "empty"]),
        (["evolve", "matrix_mixer", "--corpus", "binary.txt"], ["binary.txt"]),
        (["evolve", "matrix_mixer", "--corpus", "stdlb"], ["stdlb", "stdlib"]),
        (["evolve", "matrix_mixer", "--api-base", "http://127.0.0.1:9/v1", "--model", "m"], ["127.0.0.1:9"]),
        (["evolve", "matrix_mixer", "--api-base", "http://127.0.0.1:9/v1"], ["needs a model"]),
        (["evolve", "matrix_mixer", "--start-program", "empty.txt"], ["empty.txt", "the block is empty"]),
        (["calibrate", "nothing"], ["unknown framework 'nothing'"]),
        (["report", "absent"], ["absent is not a run"]),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_sentence_and_status_2(tmp_path: Path, arguments: list[str], parts: list[str]) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 64)
    before = sorted(tmp_path.iterdir())
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    for part in parts:
        assert part in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_a_wrong_key_is_told_without_showing_it(tmp_path: Path) -> None:
    with endpoint(401, {"error": {"message": "bad key", "code": "invalid_api_key"}}) as base:
        done = run(
            "evolve", "matrix_mixer", "--api-base", base, "--model", "m", cwd=tmp_path, OPENAI_API_KEY="sk-planted-123"
        )
    assert done.returncode == 2
    assert "key was refused" in done.stderr
    assert "sk-planted-123" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_doctor_names_every_row(tmp_path: Path) -> None:
    done = run("doctor", "--json", cwd=tmp_path)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert {"python", "packages", "devices", "sandbox", "cache", "disk", "endpoint"} <= set(rows)
    assert done.returncode == (0 if all(row["fine"] for row in rows.values()) else 1)
    assert all(row["fix"] for row in rows.values() if not row["fine"])


def test_doctor_tells_a_broken_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database" * 200)
    done = run("doctor", "--ledger", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 1
    assert "FAIL  ledger" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "experiments.cli", "evolve", "matrix_mixer", "--ladder", "debug", "--name", "cut"]
    process = subprocess.Popen(
        [*command, "--iterations", "40"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What runs in the background of a shell that is no terminal is started with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    assert process.stdout is not None
    while "evolves" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in errors
    assert "Traceback" not in errors

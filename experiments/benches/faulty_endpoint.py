"""A loopback OpenAI-compatible endpoint that follows a script of good replies and faults.

Each request takes the next entry of the script; the probe of `check_endpoint` takes none
and is answered well, so that a run starts. What a fault must be recorded as stands in the
file of targets.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, cast

MODEL = "faulty"
PROBE_TOKENS = 16
"""What `check_endpoint` asks for; proposals ask for more."""


@dataclass(frozen=True, kw_only=True)
class EndpointFault:
    """One way an endpoint can fail: a name, and what it does with a request."""

    name: str
    answer: Callable[[_Handler], None]


def completion(content: Any, **more: Any) -> dict[str, Any]:
    """A chat completion; `more` replaces or adds fields."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    head = {"id": "1", "object": "chat.completion", "created": 0, "model": MODEL}
    return head | {"choices": [choice], "usage": usage} | more


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, script: Sequence[str | EndpointFault]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = list(script)
        self.place = 0
        self.closing = threading.Event()
        self._lock = threading.Lock()

    def take(self) -> str | EndpointFault | None:
        """The next entry of the script; None past its end."""
        with self._lock:
            self.place += 1
            return self.script[self.place - 1] if self.place <= len(self.script) else None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what many faults lead to."""


class _Handler(BaseHTTPRequestHandler):
    timeout = 60

    @property
    def closing(self) -> threading.Event:
        """Set when the server ends, so that nothing hangs on."""
        return cast(_Server, self.server).closing

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def send(
        self, body: bytes, *, status: int = 200, kind: str = "application/json", length: int | None = None
    ) -> None:
        """An answer with a body; `length` may state another one than it has."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def reply(self, content: Any, **more: Any) -> None:
        """A chat completion."""
        self.send(json.dumps(completion(content, **more)).encode())

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self.close_connection = True
        with contextlib.suppress(OSError):
            if request.get("max_tokens") == PROBE_TOKENS:
                self.reply("ready")
                return
            entry = cast(_Server, self.server).take()
            if entry is None:
                self.send(b'{"error": {"message": "the script is over"}}', status=410)
            elif isinstance(entry, str):
                self.reply(entry)
            else:
                entry.answer(self)


class FaultyEndpoint:
    """The endpoint, running between `__enter__` and `__exit__`.

    Args:
        script: a text is a good reply's content; a fault does what it does.
    """

    def __init__(self, script: Sequence[str | EndpointFault]) -> None:
        self._server = _Server(script)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="faulty-endpoint", daemon=True
        )

    @property
    def base_url(self) -> str:
        """What clients take as `api_base`."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def n_requests(self) -> int:
        """Requests beside the probe."""
        return self._server.place

    def __enter__(self) -> FaultyEndpoint:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _hang(handler: _Handler) -> None:
    handler.closing.wait(60)


def _drip(handler: _Handler) -> None:
    """A byte at a time: no single read ever times out."""
    handler.send(b"", length=10**6)
    while not handler.closing.wait(0.1):
        handler.wfile.write(b" ")


def _reset(handler: _Handler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    handler.connection.close()


def _truncate(handler: _Handler) -> None:
    body = json.dumps(completion("```python\nclass Dynamics(nn.Module):\n")).encode()
    handler.send(body[: len(body) // 2], length=len(body))


def _event_stream(handler: _Handler) -> None:
    chunk = json.dumps({"choices": [{"delta": {"content": "class"}}]})
    handler.send(f'data: {chunk}\n\ndata: {{"choi'.encode(), kind="text/event-stream")


def _status(status: int) -> Callable[[_Handler], None]:
    body = json.dumps({"error": {"message": f"status {status} on purpose"}}).encode()
    return lambda handler: handler.send(body, status=status)


def _body(body: bytes, kind: str = "application/json") -> Callable[[_Handler], None]:
    return lambda handler: handler.send(body, kind=kind)


def _content(content: Any, **more: Any) -> Callable[[_Handler], None]:
    return lambda handler: handler.reply(content, **more)


_OUTSIDE_EDIT = """Make the projections do nothing.
<<<<<<< SEARCH
from frameworks.attention.shell import AttentionShell
=======
AttentionShell = nn.Module
>>>>>>> REPLACE
"""
_OUTSIDE_FILE = """```python
AttentionShell.forward = lambda self, x: x
# EVOLVE-BLOCK-START
class Dynamics(nn.Module):
    pass
# EVOLVE-BLOCK-END
```"""


def leak_key(key: str) -> EndpointFault:
    """An endpoint that repeats the key it was given: in an error, or in the content of every other reply."""
    error = json.dumps({"error": {"message": f"the key {key} is not valid today"}}).encode()
    turns = itertools.count()

    def answer(handler: _Handler) -> None:
        if next(turns) % 2:
            handler.reply(f"Your key is {key}, and this is no block.")
        else:
            handler.send(error, status=500)

    return EndpointFault(name="endpoint: repeats the key", answer=answer)


def _fault(name: str, answer: Callable[[_Handler], None]) -> EndpointFault:
    return EndpointFault(name=f"endpoint: {name}", answer=answer)


ENDPOINT_FAULTS = (
    _fault("HTTP 500", _status(500)),
    _fault("HTTP 429", _status(429)),
    _fault("hangs", _hang),
    _fault("drips a byte at a time for ever", _drip),
    _fault("resets the connection", _reset),
    _fault("truncated stream", _truncate),
    _fault("event stream nobody asked for", _event_stream),
    _fault("an HTML page", _body(b"<html><body>Bad gateway</body></html>", "text/html")),
    _fault("wrong JSON", _body(b'{"choices": [{"message": {"content": ')),
    _fault("JSON of another shape", _body(b'{"choices": [], "usage": null}')),
    _fault("empty content", _content("")),
    _fault("null content", _content(None)),
    _fault("content that is a number", _content(7)),
    _fault("usage that is not finite", _content("no block", usage={"prompt_tokens": float("nan"), "total_tokens": 1})),
    _fault("text that is not Unicode", _content("half a character: \ud800")),
    _fault("garbage", _content("jZ#\x00\x1b[31m )]} def ( lorem ```ipsum" * 50)),
    _fault("prose without code", _content("I would try a sharper softmax and report back.")),
    _fault("20 MB of text", _content("x" * 20_000_000)),
    _fault("code cut off by the token limit", _content("```python\nclass Dynamics(nn.Module):\n    def forw")),
    _fault("code nested beyond reason", _content("```python\nclass Dynamics:\n    x = " + "(" * 5000 + "\n```")),
    _fault("edits outside the block", _content(_OUTSIDE_EDIT)),
    _fault("whole file with another shell", _content(_OUTSIDE_FILE)),
)
"""All of them, in the order of the rows."""

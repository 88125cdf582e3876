"""Endpoints: where the key comes from, and what a probe says of one that cannot be used."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evolution.proposers.catalogue_server import CatalogueServer
from evolution.proposers.endpoint import NO_KEY, EndpointConfig, EndpointError, check_endpoint, openevolve_model

KEY = "sk-secret-0123456789abcdef"
COMPLETION = {
    "id": "1",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ready"}}],
}

Respond = Callable[[BaseHTTPRequestHandler, bytes], tuple[int, bytes]]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def serve() -> Iterator[Callable[[Respond], str]]:
    """Starts a small HTTP server that answers every request with a function's result."""
    servers: list[ThreadingHTTPServer] = []

    def start(respond: Respond) -> str:
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                pass

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                status, data = respond(self, body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = answer  # noqa: N815

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _error(status: int, message: str) -> Respond:
    return lambda request, body: (status, json.dumps({"error": {"message": message}}).encode())


def _refusal(config: EndpointConfig) -> str:
    with pytest.raises(EndpointError) as caught:
        check_endpoint(config)
    message = str(caught.value)
    assert KEY not in message
    assert "\n" not in message
    assert len(message) < 600
    return message


def test_a_working_endpoint() -> None:
    with CatalogueServer("matrix_mixer") as server:
        found = check_endpoint(EndpointConfig(api_base=server.base_url, model="operator-catalogue"))
    assert found.model == "operator-catalogue"
    assert 0 < found.seconds < 30


def test_an_unknown_model_gets_the_near_match() -> None:
    with CatalogueServer("matrix_mixer") as server:
        message = _refusal(EndpointConfig(api_base=server.base_url, model="operators-catalog"))
        assert "has no model 'operators-catalog'; did you mean 'operator-catalogue'?" in message
        assert "has no model 'zzz'; It has: operator-catalogue" in _refusal(
            EndpointConfig(api_base=server.base_url, model="zzz")
        ).replace("model 'zzz'; it has", "model 'zzz'; It has")


def test_a_wrong_path_is_told_from_a_wrong_model() -> None:
    with CatalogueServer("matrix_mixer") as server:
        base = server.base_url.removesuffix("/v1")
        message = _refusal(EndpointConfig(api_base=base, model="operator-catalogue"))
    assert "ends with the API's version, such as /v1" in message


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    message = _refusal(EndpointConfig(api_base=f"http://127.0.0.1:{port}/v1", model="m"))
    assert f"http://127.0.0.1:{port}/v1 cannot be reached" in message
    assert "start the server or correct proposer.api_base" in message


@pytest.mark.parametrize("base", ["127.0.0.1:8000/v1", "localhost", "", "ftp://host/v1"])
def test_what_is_no_url(base: str) -> None:
    assert "starts with http:// or https://" in _refusal(EndpointConfig(api_base=base, model="m"))


def test_a_refused_key(serve: Callable[[Respond], str], monkeypatch: pytest.MonkeyPatch) -> None:
    base = serve(_error(401, f"Incorrect API key provided: {KEY}"))
    message = _refusal(EndpointConfig(api_base=base, model="m"))
    assert "answers 401: the key was refused; set OPENAI_API_KEY or proposer.api_key_file" in message
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "no key was given" in _refusal(EndpointConfig(api_base=base, model="m"))


@pytest.mark.parametrize("status", [400, 403, 429, 500, 503])
def test_other_errors_are_passed_on_without_the_key(serve: Callable[[Respond], str], status: int) -> None:
    message = _refusal(EndpointConfig(api_base=serve(_error(status, f"quota of {KEY} is used up")), model="m"))
    assert f"answers {status} for model 'm'" in message
    assert "quota of [key] is used up" in message


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"{}", b"[]", b'{"choices": []}', b"null", b""])
def test_something_else_that_answers(serve: Callable[[Respond], str], body: bytes) -> None:
    message = _refusal(EndpointConfig(api_base=serve(lambda request, _: (200, body)), model="m"))
    assert "does not answer like an OpenAI-compatible endpoint" in message


def test_a_server_that_hangs(serve: Callable[[Respond], str]) -> None:
    def hang(request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        time.sleep(1.5)
        return 200, b"{}"

    message = _refusal(EndpointConfig(api_base=serve(hang), model="m", timeout=0.3))
    assert "gave no answer in 0.3 s" in message


def test_the_key_is_sent_and_a_reasoning_model_is_asked_its_way(serve: Callable[[Respond], str]) -> None:
    seen: list[tuple[str, Any]] = []

    def respond(request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        asked = json.loads(body)
        seen.append((request.headers["Authorization"], asked))
        if "max_tokens" in asked:
            return 400, b'{"error": {"message": "use max_completion_tokens instead"}}'
        return 200, json.dumps(COMPLETION).encode()

    assert check_endpoint(EndpointConfig(api_base=serve(respond), model="m")).model == "m"
    assert [authorization for authorization, _ in seen] == [f"Bearer {KEY}"] * 2
    assert "max_completion_tokens" in seen[1][1]


def test_where_the_key_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key.txt"
    path.write_text("  sk-from-file\n")
    config = EndpointConfig(api_base="http://x/v1", model="m")
    from_file = EndpointConfig(api_base="http://x/v1", model="m", api_key_file=path)
    assert config.read_key() == KEY
    assert from_file.read_key() == "sk-from-file"
    monkeypatch.delenv("OPENAI_API_KEY")
    assert config.read_key() == NO_KEY
    for shown in (repr(from_file), from_file.model_dump_json()):
        assert "sk-from-file" not in shown


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("", "is empty"),
        (" \n", "is empty"),
        ("two words", "one plain word"),
        ("line\nbreak", "one plain word"),
        ("schlüssel", "one plain word"),
    ],
)
def test_a_key_file_that_is_none(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "key.txt"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(EndpointError, match=words) as caught:
        EndpointConfig(api_base="http://x/v1", model="m", api_key_file=path).read_key()
    assert "key.txt" in str(caught.value)
    assert not content or not content.strip() or content.strip() not in str(caught.value)


def test_the_key_cannot_stand_in_the_configuration() -> None:
    with pytest.raises(ValidationError):
        EndpointConfig(api_base="http://x/v1", model="m", api_key="sk")  # type: ignore[call-arg]


def test_every_field_reaches_openevolve() -> None:
    config = EndpointConfig(api_base="http://x/v1", model="m", temperature=0.3, max_tokens=777, timeout=9.0)
    made = openevolve_model(config, seed=4)
    assert (made.api_base, made.name, made.temperature, made.max_tokens) == ("http://x/v1", "m", 0.3, 777)
    assert (made.timeout, made.retries, made.random_seed, made.api_key) == (9.0, 0, 4, KEY)

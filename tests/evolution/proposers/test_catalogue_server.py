"""The endpoint as its clients see it: the openai client, OpenEvolve's ensemble, and plain HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from evolution.proposers.catalogue_reply import catalogue_reply
from evolution.proposers.catalogue_server import MODEL, CatalogueServer
from evolution.proposers.fences import fenced
from evolution.proposers.reply import extract_block
from frameworks.registry import Framework, UnknownFrameworkError, framework

OWNER = framework("coefficient_dynamics")
MESSAGES: list[Any] = [
    {"role": "system", "content": "improve it"},
    {"role": "user", "content": f"# Parent program\n{fenced(OWNER.start_block)}"},
]


@pytest.fixture(scope="module")
def server() -> Iterator[CatalogueServer]:
    with CatalogueServer(OWNER, seed=3) as running:
        yield running


@pytest.fixture
def client(server: CatalogueServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0, timeout=30) as made:
        yield made


def _post(server: CatalogueServer, body: bytes, path: str = "/v1/chat/completions", method: str = "POST") -> Any:
    connection = http.client.HTTPConnection(urlsplit(server.base_url).netloc, timeout=30)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_the_openai_client_gets_a_completion(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, seed=11, temperature=0.7, max_tokens=4096)
    text = answer.choices[0].message.content
    assert text == catalogue_reply(MESSAGES, OWNER, 11)
    assert OWNER.program(extract_block(text, OWNER)).identity != OWNER.program().identity
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens > 300
    assert answer.usage.completion_tokens > 300


def test_the_seed_of_the_request_decides_and_the_servers_is_the_default(client: openai.OpenAI) -> None:
    def ask(**options: Any) -> str:
        return str(client.chat.completions.create(model=MODEL, messages=MESSAGES, **options).choices[0].message.content)

    assert ask(seed=5) == ask(seed=5) != ask(seed=6)
    assert ask() == ask(seed=3) == ask()


def test_several_choices_differ(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, seed=1, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3


def test_max_tokens_cuts_the_reply_and_says_so(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, seed=1, max_tokens=20)
    assert answer.choices[0].finish_reason == "length"
    assert len(answer.choices[0].message.content or "") == 80
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 20


def test_content_parts_are_read(client: openai.OpenAI) -> None:
    parts: list[Any] = [{"role": "user", "content": [{"type": "text", "text": MESSAGES[1]["content"]}]}]
    plain = [MESSAGES[1]]
    one = client.chat.completions.create(model=MODEL, messages=parts, seed=1)
    two = client.chat.completions.create(model=MODEL, messages=plain, seed=1)
    assert one.choices[0].message.content == two.choices[0].message.content


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


def test_openevolves_ensemble_uses_it_unmodified(server: CatalogueServer) -> None:
    from openevolve.config import LLMModelConfig
    from openevolve.llm.ensemble import LLMEnsemble

    config = LLMModelConfig(
        name=MODEL, api_base=server.base_url, api_key="any", temperature=0.7, max_tokens=4096,
        timeout=30, retries=0, retry_delay=0, random_seed=9,
    )  # fmt: skip
    ensemble = LLMEnsemble([config])
    reply = asyncio.run(ensemble.generate_with_context("improve it", MESSAGES[1:], seed=21))
    assert reply == catalogue_reply(MESSAGES, OWNER, 21)
    assert ensemble.last_usage is not None
    assert ensemble.last_usage["completion_tokens"] > 300


def test_requests_at_the_same_time_get_their_own_replies(server: CatalogueServer) -> None:
    def ask(seed: int) -> tuple[int, Any]:
        body = {"model": MODEL, "messages": MESSAGES, "seed": seed}
        return _post(server, json.dumps(body).encode())

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(6)))
    for seed, (status, answer) in enumerate(answers):
        assert status == 200, answer
        assert answer["choices"][0]["message"]["content"] == catalogue_reply(MESSAGES, OWNER, seed)


def _request(**changes: Any) -> bytes:
    return json.dumps({"model": MODEL, "messages": MESSAGES} | changes).encode()


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        (b"", 400, "invalid_json", "not JSON"),
        (b"{", 400, "invalid_json", "not JSON"),
        (b"\xff\xfe", 400, "invalid_json", "not JSON"),
        (b"[1]", 400, "invalid_json", "must be a JSON object, not list"),
        (b"[" * 100_000, 400, "invalid_json", "not JSON"),
        (_request(model="gpt-4"), 404, "model_not_found", "'gpt-4' does not exist here; the only one is"),
        (_request(model=None), 404, "model_not_found", "None does not exist"),
        (_request(messages=None), 400, "invalid_value", "at least one message"),
        (_request(messages=[]), 400, "invalid_value", "at least one message"),
        (_request(messages="hi"), 400, "invalid_value", "at least one message"),
        (_request(messages=["hi"]), 400, "invalid_value", "messages[0] must be an object"),
        (_request(messages=[{"content": "hi"}]), 400, "invalid_value", "with a 'role'"),
        (_request(messages=[{"role": "user"}]), 400, "invalid_value", "not NoneType"),
        (_request(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), 400, "invalid_value", "not list"),
        (_request(stream=True), 400, "unsupported_parameter", "'stream' is not supported"),
        (_request(tools=[{}]), 400, "unsupported_parameter", "'tools' is not supported"),
        (_request(seed="3"), 400, "invalid_value", "'seed' must be an integer"),
        (_request(seed=True), 400, "invalid_value", "'seed' must be an integer"),
        (_request(n=0), 400, "invalid_value", "'n' must be an integer from 1 to 16, not 0"),
        (_request(max_tokens=-1), 400, "invalid_value", "'max_tokens' must be an integer from 1"),
    ],
)
def test_a_malformed_request_gets_a_typed_error(
    server: CatalogueServer, body: bytes, status: int, code: str, words: str
) -> None:
    seen, answer = _post(server, body)
    assert seen == status
    assert answer["error"]["code"] == code
    assert answer["error"]["type"] == "invalid_request_error"
    assert words in answer["error"]["message"]


def test_paths_and_methods(server: CatalogueServer) -> None:
    assert _post(server, b"", "/v1/nothing", "GET")[0] == 404
    assert _post(server, b"", "/v1/chat/completions", "GET")[0] == 405
    assert _post(server, b"{}", "/v1/models", "POST")[0] == 405
    assert _post(server, b"{}", "/v1/models", "PUT")[0] == 405
    assert _post(server, b"", "/v1/models?limit=1", "GET")[0] == 200
    connection = http.client.HTTPConnection(urlsplit(server.base_url).netloc, timeout=30)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.endheaders()
    assert connection.getresponse().status == 411
    connection.close()
    connection = http.client.HTTPConnection(urlsplit(server.base_url).netloc, timeout=30)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("Content-Length", "99999999999")
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_the_clients_error_is_the_openai_one(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="the only one is 'operator-catalogue'"):
        client.chat.completions.create(model="gpt-4", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError, match="'stream' is not supported"):
        client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)


def test_it_starts_stops_and_starts_again() -> None:
    before = threading.active_count()
    server = CatalogueServer("matrix_mixer")
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.base_url
    for _ in range(2):
        with server:
            url = server.base_url
            assert urlsplit(url).hostname == "127.0.0.1"
            held = http.client.HTTPConnection(
                urlsplit(url).netloc, timeout=5
            )  # a connection kept open must not hang it
            held.request("GET", "/v1/models")
            assert held.getresponse().status == 200
            with pytest.raises(RuntimeError, match="running already"):
                server.__enter__()
        with pytest.raises(OSError):
            _post_to(url)
        held.close()
    assert threading.active_count() <= before + 1


def _post_to(url: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    connection.request("GET", "/v1/models")


def test_a_framework_it_cannot_serve_is_refused() -> None:
    with pytest.raises(UnknownFrameworkError):
        CatalogueServer("matrix_mixr")
    foreign = Framework(**{**vars(OWNER), "name": "something_else"})
    with pytest.raises(ValueError, match="nothing for framework 'something_else'"):
        CatalogueServer(foreign)

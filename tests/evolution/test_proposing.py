"""What a reply is said to have changed, and a client that never raises."""

from __future__ import annotations

import pytest

from evolution.proposers.catalogue_server import CatalogueServer
from evolution.proposers.client import is_final, is_passing, is_unbilled
from evolution.proposers.endpoint import EndpointConfig
from evolution.proposers.prompt import ShownProgram, render_prompt
from evolution.proposing import EndpointClient, summary_of
from experiments.benches.faulty_endpoint import FaultyEndpoint, leak_key
from frameworks.registry import framework


@pytest.mark.parametrize(
    ("reply", "summary"),
    [
        (
            "Change:\n- short_convolution: taps (A 2021)\n- qk_norm: norm\n```python\nx\n```",
            "short_convolution + qk_norm",
        ),
        ("I add a decay to the scores. It helps.\n```python\nx\n```", "I add a decay to the scores. It helps."),
        ("```python\nx\n```", ""),
        ("word " * 100, ("word " * 100)[:160].rstrip() + " ..."),
    ],
)
def test_summary(reply: str, summary: str) -> None:
    assert summary_of(reply) == summary


def test_the_client_asks_the_catalogue_through_openevolves_ensemble() -> None:
    found = framework("matrix_mixer")
    prompt = render_prompt(found, ShownProgram(block=found.start_block))
    with CatalogueServer("matrix_mixer", 1) as server:
        client = EndpointClient(EndpointConfig(api_base=server.base_url, model="operator-catalogue"))
        first, again = (client.ask(prompt.system, prompt.user, 7) for _ in range(2))
        other = client.ask(prompt.system, prompt.user, 8)
    assert first.error is None
    assert first.text == again.text
    assert first.text != other.text
    assert first.prompt_tokens is not None
    assert first.prompt_tokens > 100


def test_a_dead_endpoint_is_an_answer_with_an_error_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-456")
    client = EndpointClient(EndpointConfig(api_base="http://127.0.0.1:9/v1", model="m"))
    answer = client.ask("system", "user", 1)
    assert answer.text is None
    assert answer.error is not None
    assert "sk-planted-456" not in answer.error
    assert answer.prompt_tokens is None


def test_a_key_that_an_endpoint_repeats_is_in_no_answer_and_no_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-456")
    leak = leak_key("sk-planted-456")
    with FaultyEndpoint([leak, leak]) as endpoint:
        client = EndpointClient(EndpointConfig(api_base=endpoint.base_url, model="m"))
        answers = [client.ask("system", "user", seed) for seed in range(2)]
    assert all("[key]" in f"{answer.text} {answer.error}" for answer in answers)
    said = capfd.readouterr()
    assert "sk-planted-456" not in f"{answers} {caplog.text} {said.out} {said.err}"


@pytest.mark.parametrize(
    ("error", "final", "passing", "unbilled"),
    [
        ("AuthenticationError: no", True, False, True),
        ("NotFoundError: no such model", True, False, True),
        ("BadRequestError: too long", False, False, True),
        ("RateLimitError: later", False, True, True),
        ("TimeoutError: no complete reply within 5 s", False, True, False),
        ("the endpoint returned an empty reply", False, False, False),
        (None, False, False, False),
    ],
)
def test_errors_are_told_apart(error: str | None, final: bool, passing: bool, unbilled: bool) -> None:
    assert (is_final(error), is_passing(error), is_unbilled(error)) == (final, passing, unbilled)

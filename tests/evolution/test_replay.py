"""A run with several proposers, one of which leaks its key, and its replay: the same end, and the key nowhere."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from evolution.config import ConfigError, load_config
from evolution.ledger import Ledger
from evolution.replay import differences, replay_config
from evolution.session import LEDGER_NAME, evolve
from experiments.benches.faulty_endpoint import MODEL, FaultyEndpoint, leak_key
from experiments.benches.toy_evolution import FRAMEWORK, good_replies, toy_config

KEY = "sk-planted-0f1e2d3c4b5a"


def several(endpoint: FaultyEndpoint, **changes: Any) -> Any:
    arms = [
        {"kind": "endpoint", "name": "leaky", "model": MODEL, "api_base": endpoint.base_url, "max_tokens": 64},
        {"kind": "catalogue"},
    ]
    return toy_config(
        iterations=3, proposers=arms, proposer__kind="catalogue", proposer__attempts=3, proposer__backoff=0.0, **changes
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two proposers; the endpoint repeats its key at every request but one."""
    runs = tmp_path_factory.mktemp("runs")
    leak = leak_key(KEY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        with FaultyEndpoint([leak, leak, *good_replies(1), leak, leak, leak]) as endpoint:
            evolve(several(endpoint, name="first", guidance__withhold=1.0), runs)
    return runs / "first"


def test_a_planted_key_is_in_no_file_of_the_run(recorded: Path) -> None:
    files = [path for path in recorded.rglob("*") if path.is_file()]
    assert len(files) >= 3
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    with Ledger.open(recorded / LEDGER_NAME, read_only=True) as ledger:
        replies = [event.payload for event in ledger.events("reply")]
    said = [f"{reply['text']} {reply['error']}" for reply in replies if reply["proposer"] == "leaky"]
    assert any("[key]" in text for text in said)


def test_every_reply_is_on_record_with_its_request_and_proposer(recorded: Path) -> None:
    with Ledger.open(recorded / LEDGER_NAME, read_only=True) as ledger:
        replies = {event.key: event.payload for event in ledger.events("reply")}
        proposals = {event.key: event.payload for event in ledger.proposals()}
    assert set(replies) == set(proposals)
    assert {payload["proposer"] for payload in proposals.values()} >= {"leaky"}
    assert all(payload["messages"][1]["content"] for payload in replies.values())
    withheld = {payload["withheld"] for payload in proposals.values() if payload["proposer"] == "leaky"}
    assert withheld <= {"failures", "inspirations", "curves"}
    bare = [p for p in replies.values() if p["withheld"] == "failures"]
    assert all("Not shown in this prompt." in payload["messages"][1]["content"] for payload in bare)
    page = (recorded / "report.html").read_text(encoding="utf-8")
    assert "Who proposed, and what came of it" in page


def test_a_replay_asks_nobody_and_reaches_the_same_end(recorded: Path, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}
    config = replay_config(recorded, framework=FRAMEWORK, name=None, workers=1)
    result = evolve(config, tmp_path, replay=recorded, listener=lambda event, payload: seen.update({event: payload}))
    assert seen["replayed"]["differences"] == []
    assert result.sentence
    with (
        Ledger.open(recorded / LEDGER_NAME, read_only=True) as first,
        Ledger.open(tmp_path / "first-replay" / LEDGER_NAME, read_only=True) as second,
    ):
        assert len(first.events("reply")) == len(second.events("reply")) > 0
        assert differences(first, second) == []
        assert second.integrity() == []


def test_what_differs_is_named(recorded: Path, tmp_path: Path) -> None:
    with Ledger.open(recorded / LEDGER_NAME, read_only=True) as first:
        run = first.runs()[0]
        with Ledger.open(tmp_path / "other.sqlite", create=True) as other:
            other.commit_run(run.key, run.spec, run.outcome | {"val_loss": run.outcome["val_loss"] + 1e-9})
            found = differences(first, other)
    assert any(re.match(rf"loss {run.key[:12]} was", line) for line in found)
    assert any(line.startswith("candidate") and line.endswith("is not in the replay") for line in found)


def test_a_replay_that_cannot_be_is_refused(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no ledger"):
        replay_config(tmp_path, framework=FRAMEWORK, name=None, workers=None)
    with pytest.raises(ConfigError, match="evolved coefficient_dynamics, not matrix_mixer"):
        replay_config(recorded, framework="matrix_mixer", name=None, workers=None)
    with pytest.raises(ConfigError, match="is the replayed run's own"):
        replay_config(recorded, framework=FRAMEWORK, name="first", workers=None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["proposer.kind=local"], "needs model: embedded"),
        (["proposer={kind: endpoint, model: m, api_key_variable: sk-12}"], "NAME of an environment variable"),
        (["proposer={kind: endpoint, model: m, api_base: 'http://u:sk-12@h/v1'}"], "before '@'"),
        (["proposer={kind: endpoint, model: m, api_base: 'http://h/v1?key=sk-12'}"], "after '\\?'"),
        (["budget.dolars=3"], "did you mean 'dollars'"),
        (["guidance.ingredients=[curves, curves]"], "at most once"),
    ],
)
def test_settings_that_cannot_be_are_refused_without_repeating_a_key(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(None, settings, {"framework": FRAMEWORK})
    assert "sk-12" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proposer": {"kind": "local", "model": "/nowhere/model.gguf"}}, "/nowhere/model.gguf"),
        ({"proposer": {"kind": "local", "model": "embeded"}}, "neither 'embedded'"),
        ({"budget.dollars": 1, "proposer": {"kind": "endpoint", "model": "unheard-of"}}, "unheard-of.* is not known"),
        ({"proposers": [{"kind": "catalogue"}, {"kind": "catalogue"}]}, "called the same"),
        ({"budget.training_tokens": 1000}, "it must be at least"),
    ],
)
def test_proposers_and_budgets_that_cannot_work_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    base = json.loads(toy_config(proposer__kind="catalogue", proposer__model=None).model_dump_json())
    config = load_config(None, None, base | {"proposer": {}} | changes)
    with pytest.raises(ValueError, match=message):
        evolve(config, tmp_path)
    assert list(tmp_path.iterdir()) == []

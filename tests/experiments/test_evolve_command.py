"""How `--llm` and `--replay` are understood, and what is said of combinations that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from evolution.budget import Spent
from evolution.config import ConfigError, load_config
from experiments.cli import app
from experiments.commands.evolve import llm_overrides
from experiments.live import _cost


def kinds(llm: list[str], model: str | None = None) -> list[str]:
    config = load_config(None, None, {"framework": "matrix_mixer"} | llm_overrides(llm, "http://h/v1", model, False))
    return [section.kind for section in config.proposers] or [config.proposer.kind]


def test_names_become_proposers() -> None:
    assert kinds(["embedded"]) == ["local"]
    assert kinds(["catalogue"]) == ["catalogue"]
    assert kinds(["some/model.gguf", "catalogue"]) == ["local", "catalogue"]
    assert kinds(["endpoint", "embedded"], "m") == ["endpoint", "local"]
    with pytest.raises(ConfigError, match="an endpoint needs a model"):
        kinds(["endpoint"])
    with pytest.raises(ConfigError, match="add --llm endpoint"):
        llm_overrides(["embedded"], None, "m", True)


def test_a_replay_takes_no_other_setting(tmp_path: Path) -> None:
    arguments = ["evolve", "matrix_mixer", "--replay", str(tmp_path)]
    done = CliRunner().invoke(app, [*arguments, "--seed", "3", "--llm", "embedded"])
    assert isinstance(done.exception, ConfigError)
    assert "leave out" in str(done.exception)
    assert all(flag in str(done.exception) for flag in ("--seed", "--llm"))
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, ConfigError)
    assert "there is no ledger" in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_cost_in_the_bar_is_what_was_reported() -> None:
    assert _cost(None) == ""
    assert _cost(Spent(calls=0, unreported=0, tokens=0, dollars=None, unpriced=0)) == ""
    told = _cost(Spent(calls=3, unreported=1, tokens=1234, dollars=0.0125, unpriced=0))
    assert told == ", 1,234 LLM tokens (1 calls reported none), $0.0125"
    assert "no price known" in _cost(Spent(calls=1, unreported=0, tokens=10, dollars=None, unpriced=1))

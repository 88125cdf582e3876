"""Racing and ablation inside whole toy evolutions."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from evolution.ablation import ablate, edits_between
from evolution.config import ConfigError, load_config
from evolution.inspection import inspect_run
from evolution.ledger import Ledger
from evolution.proposers.operators.catalogue import operator
from evolution.session import LEDGER_NAME, evolve
from frameworks.program import normalise_block
from frameworks.registry import framework

TINY: dict[str, Any] = {
    "framework": "coefficient_dynamics",
    "ladder": "debug",
    "iterations": 7,
    "seed": 3,
    "in_flight": 2,
    "workers": 2,
    "corpus.source": "stories",
    "corpus.max_bytes": 400_000,
    "confirmation.seeds": 2,
    "confirmation.shortlist": 1,
    "racing.least_population": 2,
    "racing.least_finished": 3,
    "racing.least_fidelity": -1.0,
    "racing.least_kept": 1,
}
BUDGET = 24_000
"""Training tokens; one run of the smallest debug size takes 1,536."""


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished race with a token budget."""
    runs = tmp_path_factory.mktemp("raced")
    evolve(load_config(None, None, TINY | {"name": "raced", "racing.budget_tokens": BUDGET}), runs)
    return runs / "raced"


def decisions(run: Path) -> list[dict[str, Any]]:
    with Ledger.open(run / LEDGER_NAME, read_only=True) as ledger:
        return [event.payload for event in ledger.events("decision")]


def search_tokens(run: Path) -> dict[str, int]:
    """Tokens trained in the search by candidate."""
    spent: dict[str, int] = {}
    with Ledger.open(run / LEDGER_NAME, read_only=True) as ledger:
        for record in ledger.runs():
            if record.spec["purpose"] == "search":
                tokens = record.spec["steps"] * record.spec["batch_size"] * record.spec["seq_len"]
                spent[record.spec["candidate"]] = spent.get(record.spec["candidate"], 0) + tokens
    return spent


@pytest.mark.slow
def test_a_stopped_candidate_has_fewer_runs_and_a_reason_and_the_budget_holds(raced: Path) -> None:
    spent = search_tokens(raced)
    assert sum(spent.values()) <= BUDGET
    stopped = [row for row in decisions(raced) if row["what"] == "stopped_early"]
    assert stopped
    fullest = max(spent.values())
    for row in stopped:
        assert row["reason"]
        assert row["rule"] in ("hurdle", "reference", "best", "budget")
        assert spent[row["candidate"]] < fullest
    assert any(row["what"] == "budget" for row in decisions(raced))


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(raced: Path, tmp_path: Path) -> None:
    evolve(load_config(None, None, TINY | {"name": "raced", "racing.budget_tokens": BUDGET, "workers": 1}), tmp_path)
    assert decisions(tmp_path / "raced") == decisions(raced)


def test_without_a_section_nothing_is_raced() -> None:
    assert load_config(None, None, {"framework": "coefficient_dynamics"}).racing is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("racing.kep", 0.5, "did you mean 'keep'"),
        ("racing.keep", 0, "racing.keep"),
        ("racing.budget_tokens", 0, "racing.budget_tokens"),
        ("racing.least_fidelity", 2, "racing.least_fidelity"),
    ],
)
def test_wrong_rules_are_named(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, None, {"framework": "coefficient_dynamics", key: value})


def test_a_budget_that_buys_nothing_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="already take 4,608 training tokens"):
        evolve(load_config(None, None, TINY | {"racing.budget_tokens": 4_607}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_edits_are_hunks_each_of_which_can_be_taken_back() -> None:
    start = framework("coefficient_dynamics").start_block
    once = start.replace("return b * k", "return b * k * 1.5", 1)
    twice = once.replace("return a.sum(-1, keepdim=True)", "return a.sum(-1, keepdim=True) + 1.0", 1)
    edits = edits_between(start, twice, "coefficient_dynamics")
    assert [edit.summary for edit in edits] == ["return b * k * 1.5", "return a.sum(-1, keepdim=True) + 1.0"]
    assert edits[1].without == once
    for same in (start, start.replace("b = self", "# a word\n        b = self", 1)):
        assert edits_between(start, same, "coefficient_dynamics") == []


def test_an_operator_of_the_catalogue_is_one_edit_with_all_its_statements() -> None:
    start = framework("coefficient_dynamics").start_block
    changed = operator("distance_bias").apply(start, "coefficient_dynamics", random.Random(0))
    assert changed is not None
    both = operator("qk_rms_norm").apply(changed, "coefficient_dynamics", random.Random(0))
    assert both is not None
    edits = edits_between(start, both, "coefficient_dynamics")
    assert {edit.operator for edit in edits} == {"distance_bias", "qk_rms_norm"}
    rest = next(edit for edit in edits if edit.operator == "qk_rms_norm").without
    assert normalise_block(rest) == normalise_block(changed)


def test_what_is_no_run_cannot_be_taken_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run"):
        ablate(tmp_path, seeds=2)


@pytest.mark.slow
def test_each_edit_of_a_winner_has_a_paired_effect_on_fresh_seeds(raced: Path) -> None:
    effects = ablate(raced, seeds=2, sizes=["d16"])
    assert effects
    for effect in effects:
        assert (effect.failure is None) == (effect.test is not None)
        assert len(effect.differences) in (0, 2)
    with Ledger.open(raced.parent / "raced-ablation" / LEDGER_NAME, read_only=True) as ledger:
        records = ledger.runs()
    assert {record.spec["purpose"] for record in records} == {"tuning"}
    ablate(raced, seeds=2, sizes=["d16"])
    with Ledger.open(raced.parent / "raced-ablation" / LEDGER_NAME, read_only=True) as ledger:
        assert len(ledger.runs()) == len(records), "nothing is measured twice"


@pytest.mark.slow
def test_a_look_inside_reads_every_head_of_both_arms(raced: Path) -> None:
    found = inspect_run(raced)
    assert [one.arm for one in found] == ["reference", "winner"]
    for one in found:
        assert one.maps.shape == (2, 32, 32)
        assert all(1.0 <= head.effective_context <= 32.0 for head in one.heads)
    with pytest.raises(ConfigError, match="did you mean 'd16'"):
        inspect_run(raced, size="d15")

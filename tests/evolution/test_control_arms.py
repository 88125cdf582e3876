"""Control arms at the search's budget, in one real evolution and its replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evolution.guidance import Guidance, draw_withheld
from evolution.ledger import Ledger
from evolution.proposer_config import ControlsSection, GuidanceSection
from evolution.proposers.prompt import Failure, ShownProgram, SizeLoss
from evolution.replay import differences, replay_config
from evolution.session import LEDGER_NAME, evolve
from experiments.benches.toy_evolution import FRAMEWORK, toy_config

ARMS = {"best_of_n", "random_operators", "tuning"}


@pytest.mark.slow
def test_every_arm_has_the_searchs_budget_and_a_replay_repeats_it_all(tmp_path: Path) -> None:
    switched = dict.fromkeys(ARMS, True)
    config = toy_config(
        name="first", iterations=3, proposer={"kind": "catalogue", "attempts": 3}, controls={**switched, "seeds": 2}
    )
    evolve(config, tmp_path)
    with Ledger.open(tmp_path / "first" / LEDGER_NAME, read_only=True) as ledger:
        notes = {e.payload["arm"]: e.payload for e in ledger.events("note") if e.payload["what"] == "control_arm"}
        gains = ledger.event("note", "arm_gains")
        searched = {run.spec["candidate"] for run in ledger.runs(purpose="search")}
        tuned = {run.spec["learning_rate"] for run in ledger.runs(purpose="tuning")}
        own = {event.key for event in ledger.candidates() if not event.payload.get("arm")}
        assert ledger.integrity() == []
    n_candidates = len(own) - 1
    assert set(notes) == ARMS
    assert all(note["measured"] == n_candidates for note in notes.values())
    assert gains is not None
    assert all(len(values) == 2 for values in gains.payload["gains"].values())
    assert own <= searched
    assert len(tuned) >= n_candidates
    page = (tmp_path / "first" / "report.html").read_text(encoding="utf-8")
    assert "Did guidance help?" in page
    assert "best of N from the start program" in page
    evolve(replay_config(tmp_path / "first", framework=FRAMEWORK, name="again", workers=None), tmp_path,
           replay=tmp_path / "first")  # fmt: skip
    with (
        Ledger.open(tmp_path / "first" / LEDGER_NAME, read_only=True) as first,
        Ledger.open(tmp_path / "again" / LEDGER_NAME, read_only=True) as second,
    ):
        assert differences(first, second) == []
        again = second.event("note", "arm_gains")
    assert again is not None
    assert again.payload == gains.payload


def test_names_of_the_arms_follow_the_switches() -> None:
    assert ControlsSection().names == ()
    assert set(ControlsSection(**dict.fromkeys(ARMS, True)).names) == ARMS


def test_an_ingredient_is_withheld_from_the_configured_share_and_is_drawn_by_key() -> None:
    section = GuidanceSection(withhold=0.3)
    drawn = [draw_withheld(section, 1, iteration, 0) for iteration in range(600)]
    assert drawn == [draw_withheld(section, 1, iteration, 0) for iteration in range(600)]
    share = sum(ingredient is not None for ingredient in drawn) / len(drawn)
    assert 0.24 < share < 0.36
    assert {"failures", "inspirations", "curves", None} == set(drawn)
    assert {draw_withheld(GuidanceSection(withhold=0.0), 1, i, 0) for i in range(50)} == {None}


def test_only_the_named_ingredient_is_missing() -> None:
    losses = [SizeLoss(size="d16", loss=1.0, reference_loss=1.1, seeds=2)]
    whole = Guidance(
        parent=ShownProgram(block="p", losses=losses),
        others=[ShownProgram(block="o", losses=losses)],
        failures=[Failure(status="rejected", reason="r")],
        noise=0.01,
    )
    assert whole.without(None) is whole
    assert whole.without("failures").failures is None
    assert whole.without("failures").others == whole.others
    assert whole.without("inspirations").others is None
    curves: Any = whole.without("curves")
    assert curves.parent.losses is None
    assert [other.losses for other in curves.others] == [None]
    assert curves.failures == whole.failures
    with pytest.raises(ValueError, match="one of failures, inspirations, curves"):
        whole.without("luck")

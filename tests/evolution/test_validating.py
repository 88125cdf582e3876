"""Tuning and validation of a finished evolution at toy size: real ledger, sandbox, studies and training."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evolution.config import ConfigError, load_config
from evolution.finished_run import FinishedRun, read_finished_run, recorded_settings
from evolution.ledger import Ledger
from evolution.ledger.errors import SealError
from evolution.projection import report_data
from evolution.session import LEDGER_NAME, check_request, load_run_corpus, manifest_of
from evolution.tuning import TunedArm, tune
from evolution.validating import SUMMARY, Validation, validate
from frameworks.attention.controls.registry import control
from training.checkpoint import read_checkpoint
from training.hyperparameter_search import SearchSpace
from training.validate_best import ValidationSeeds, read_curve, run_folder


def silent(event: str, payload: Mapping[str, Any]) -> None:
    pass


def finished_run(directory: Path, *, finished: bool = True) -> str:
    """The ledger of an evolution that shortlisted a short convolution; its identity."""
    settings = {"framework": "coefficient_dynamics", "ladder": "debug", "corpus.source": "stories", "seed": 3}
    config = load_config(None, None, settings | {"corpus.max_bytes": 400_000, "workers": 2, "confirmation.alpha": 0.05})
    request = check_request(config)
    corpus = load_run_corpus(config, request.ladder, silent)
    reference = request.framework.program()
    candidate = control("short_convolution_dynamics").program()
    directory.mkdir(parents=True)
    with Ledger.open(directory / LEDGER_NAME, create=True) as ledger:
        ledger.record("run_started", manifest_of(request, corpus, None))
        for program in (reference, candidate):
            ledger.record("candidate", {"candidate": program.identity, "block": program.block}, program.identity)
        ledger.declare_plan(
            {
                "reference": reference.identity,
                "shortlist": [candidate.identity],
                "seeds": [20300, 20301],
                "sizes": ["d16", "d24"],
            }
        )
        if finished:
            ledger.record("run_finished", {"sentence": "as a test", "n_candidates": 1}, "end")
    return candidate.identity


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    directory = tmp_path_factory.mktemp("runs") / "toy"
    finished_run(directory)
    return read_finished_run(directory)


@pytest.fixture(scope="module")
def tuned(run: FinishedRun) -> tuple[TunedArm, TunedArm]:
    return tune(run, size=None, trials=3, seeds=1, space=SearchSpace(), listener=silent)


@pytest.fixture(scope="module")
def validation(run: FinishedRun, tuned: tuple[TunedArm, TunedArm]) -> Validation:
    """Interrupted after five of its twelve runs, and gone on with."""
    outcomes = []

    def stop_at_the_fifth(event: str, payload: Mapping[str, Any]) -> None:
        if event == "outcome":
            outcomes.append(payload)
            if len(outcomes) == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validate(run, ValidationSeeds(first=42, count=2), stop_at_the_fifth)
    with Ledger.open(run.directory / LEDGER_NAME, read_only=True) as ledger:
        assert 5 <= len(ledger.runs(purpose="confirmation")) < 12
    return validate(run, ValidationSeeds(first=42, count=2), silent)


def test_both_arms_are_tuned_alike_on_tuning_seeds(run: FinishedRun, tuned: tuple[TunedArm, TunedArm]) -> None:
    reference, candidate = tuned
    assert [trial.settings for trial in reference.trials] == [trial.settings for trial in candidate.trials]
    assert all(len(trial.losses) == 1 for arm in tuned for trial in arm.trials)
    assert reference.untuned == reference.trials[0].losses[0]
    assert reference.trials[0].losses != candidate.trials[0].losses
    with Ledger.open(run.directory / LEDGER_NAME, read_only=True) as ledger:
        runs = ledger.runs(purpose="tuning")
        assert {r.spec["eval_split"] for r in runs} == {"search_validation"}
        assert len(runs) == 6
        assert recorded_settings(ledger, run) == {arm.candidate: arm.best.settings for arm in tuned}


def test_a_validation_is_confirmed_under_a_plan_and_seal_of_its_own(run: FinishedRun, validation: Validation) -> None:
    with Ledger.open(run.directory / LEDGER_NAME, read_only=True) as ledger:
        plan = ledger.events("plan")[-1]
        opened = ledger.events("seal_opened")
        runs = ledger.runs(purpose="confirmation")
        assert ledger.integrity() == []
    assert plan.payload["seeds"] == [20042, 20043]
    assert plan.payload["sizes"] == ["d16", "d24", "d32"]  # d32 is the unseen one
    assert len(opened) == 1  # the interruption did not open it twice
    assert plan.seq < opened[0].seq < min(record.seq for record in runs)
    assert len(runs) == 12
    assert {record.spec["eval_split"] for record in runs} == {"confirmation_test"}
    assert validation.verdict["candidate"] == run.candidate.identity
    assert validation.verdict["evidence"]["n_pairs"] == 2


def test_each_arm_runs_at_its_own_tuned_settings(
    run: FinishedRun, tuned: tuple[TunedArm, TunedArm], validation: Validation
) -> None:
    with Ledger.open(run.directory / LEDGER_NAME, read_only=True) as ledger:
        for arm in tuned:
            for record in ledger.runs(candidate=arm.candidate, purpose="confirmation", size="d24"):
                wanted = arm.best.settings.overrides(run.request.ladder.size("d24"))
                assert {name: record.spec[name] for name in wanted} == wanted
    assert set(validation.settings) == {arm.candidate for arm in tuned}


def test_every_checkpoint_curve_and_cost_is_kept(run: FinishedRun, validation: Validation) -> None:
    summary = json.loads((validation.directory / SUMMARY).read_text())
    assert len(summary["runs"]) == 12
    for row in summary["runs"]:
        assert row["status"] == "completed"
        for name in ("flops", "tokens", "seconds", "cpu_seconds", "peak_memory_bytes", "n_parameters"):
            assert row[name] > 0, name
    with Ledger.open(run.directory / LEDGER_NAME, read_only=True) as ledger:
        from training.run_spec import RunSpec

        for record in ledger.runs(purpose="confirmation"):
            folder = run_folder(validation.directory, RunSpec.model_validate(record.spec))
            checkpoints = sorted(folder.glob("step_*.ckpt"))
            assert len(checkpoints) == len(record.outcome["curve"])
            assert read_checkpoint(checkpoints[-1])["step"] == record.spec["steps"]
            assert read_curve(folder)[-1]["val_loss"] == record.outcome["val_loss"]


def test_a_second_call_measures_nothing_and_says_the_same(run: FinishedRun, validation: Validation) -> None:
    recorded = []
    again = validate(
        run,
        ValidationSeeds(first=42, count=2),
        lambda event, payload: recorded.append(payload["recorded"]) if event == "outcome" else None,
    )
    assert recorded == [True] * 12
    assert again.verdict == validation.verdict


def test_overlapping_seeds_are_refused_by_the_ledger(run: FinishedRun, validation: Validation) -> None:
    with pytest.raises(SealError, match=r"already confirmed|shares a candidate"):
        validate(run, ValidationSeeds(first=43, count=2), silent)


def test_mistakes_are_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run"):
        read_finished_run(tmp_path / "nowhere")
    finished_run(tmp_path / "open", finished=False)
    with pytest.raises(ConfigError, match="has not finished"):
        read_finished_run(tmp_path / "open")
    identity = finished_run(tmp_path / "done")
    assert read_finished_run(tmp_path / "done", candidate=identity[:6]).candidate.identity == identity
    with pytest.raises(ConfigError, match=f"no candidate of this run; candidates: {identity[:12]}"):
        read_finished_run(tmp_path / "done", candidate="ffffnot")
    found = read_finished_run(tmp_path / "done")
    with pytest.raises(ValueError, match="unknown size"):
        tune(found, size="d17", trials=1, seeds=1, space=SearchSpace(), listener=silent)
    assert not (tmp_path / "done" / "tuning.sqlite").exists()


def test_a_changed_corpus_is_told_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_run(tmp_path / "done")
    found = read_finished_run(tmp_path / "done")
    with pytest.raises(ConfigError, match="has changed since 'done' ran"):
        dataclasses.replace(found, corpus_hash="0" * 64).corpus(silent)


def test_a_validation_has_a_report_of_its_own_and_the_runs_own_is_untouched(
    run: FinishedRun, validation: Validation
) -> None:
    page = validation.report.read_text(encoding="utf-8")
    assert "at their own tuned settings" in page
    assert "d32" in page
    with Ledger.open(run.directory / LEDGER_NAME, read_only=True) as ledger:
        own = report_data(ledger, "toy")
        declared = ledger.events("plan")[-1]
        theirs = report_data(ledger, "toy", plan_key=str(declared.key))
    assert own.confirmation == []  # this toy run stopped at its plan
    assert own.verdicts == ()
    assert len(theirs.confirmation) == 12
    assert len(theirs.verdicts) == 1
    assert all(row["purpose"] != "tuning" for row in theirs.curves)

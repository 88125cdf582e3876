"""Searches end to end on a small corpus: continued training is exact, a restart changes nothing, workers neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from data.corpus import Corpus, CorpusConfig, load_corpus
from evolution.architecture_search.generations import Generations
from evolution.architecture_search.search_report import write_report
from evolution.architecture_search.settings import EvolutionSettings, SearchSettings, settings_from
from evolution.architecture_search.sweep import sweep
from evolution.architecture_search.table import Row
from evolution.architecture_search.workplace import LEDGER, workplace
from evolution.config import ConfigError
from evolution.ledger import Ledger
from frameworks.architecture.document import architecture_from, identity, load_architecture, tree_of
from frameworks.architecture.preset import preset
from frameworks.architecture.schema import Architecture, TrainSettings
from training.architecture_spec import StretchSpec, stretch_spec
from training.architecture_trainer import Trained, calibration_error, train_stretch
from training.checkpoint import CheckpointError

SMALL = {
    "seq_len": 16,
    "batch_size": 2,
    "eval_tokens": 128,
    "vocab_size": 300,
    "asha_min_steps": 1,
    "asha_max_steps": 3,
    "pdh_steps": 2,
    "pdh_stages": 2,
    "corpus": {"source": "stories", "max_bytes": 120_000},
}


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    patch = pytest.MonkeyPatch()
    patch.setenv("EVOSCALE_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def corpus(_cache: Any) -> Corpus:
    return load_corpus(CorpusConfig(source="stories", vocab_size=300, max_bytes=120_000))


def stretch(architecture: Architecture, corpus: Corpus, stop_at: int, **changes: Any) -> StretchSpec:
    fields: dict[str, Any] = {"horizon": 6, "seed": 3, "seq_len": 16, "batch_size": 2, "eval_tokens": 64}
    return stretch_spec(
        architecture,
        stop_at=stop_at,
        vocab_size=300,
        corpus_hash=corpus.hash,
        tokenizer_hash=corpus.tokenizer_hash,
        **{**fields, **changes},
    )


def trained(architecture: Architecture, corpus: Corpus, folder: Path, stop_at: int, **changes: Any) -> Trained:
    outcome = train_stretch(stretch(architecture, corpus, stop_at, **changes), architecture, corpus, folder)
    assert isinstance(outcome, Trained)
    return outcome


@pytest.mark.parametrize("name", ["llama_like", "free_transformer"])
def test_continuing_equals_training_in_one_go(name: str, corpus: Corpus, tmp_path: Path) -> None:
    architecture = preset(name)
    for stop in (2, 3, 6):
        parts = trained(architecture, corpus, tmp_path / "parts", stop)
    whole = trained(architecture, corpus, tmp_path / "whole", 6)
    assert parts.val_loss == whole.val_loss
    assert (parts.elbo is None) == (name == "llama_like")
    with pytest.raises(CheckpointError, match="wanted at most step 2"):
        train_stretch(stretch(architecture, corpus, 2), architecture, corpus, tmp_path / "whole")
    with pytest.raises(CheckpointError, match="trajectory"):
        train_stretch(stretch(architecture, corpus, 6, seed=4), architecture, corpus, tmp_path / "whole")


def test_every_training_setting_is_read(corpus: Corpus, tmp_path: Path) -> None:
    base = architecture_from(tree_of(preset("llama_like")) | {"train": {"weight_decay": 0.1, "clip": 0.5}})
    others: dict[str, Any] = {
        "lr": 1e-2,
        "weight_decay": 0.5,
        "beta1": 0.5,
        "beta2": 0.5,
        "clip": 0.01,
        "warmup_fraction": 0.8,
        "schedule": "constant",
        "precision": "bf16",
        "seq_len": 24,
        "batch_size": 3,
    }
    assert set(others) == set(TrainSettings.model_fields)
    lengths = {"seq_len": None, "batch_size": None}
    expected = trained(base, corpus, tmp_path / "base", 6, **lengths).val_loss
    for field, value in others.items():
        tree = tree_of(base)
        tree["train"][field] = value
        assert trained(architecture_from(tree), corpus, tmp_path / field, 6, **lengths).val_loss != expected, field


def test_an_accelerator_that_fails_is_given_up_and_said(corpus: Corpus, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("needs a machine whose accelerator fails; this one has a GPU")
    outcome = trained(preset("llama_like"), corpus, tmp_path, 2, device_kind="cuda")
    assert outcome.fallback is not None
    assert "trained on the CPU" in outcome.fallback


def test_calibration_error() -> None:
    confidence = torch.tensor([0.9, 0.9, 0.1, 0.1], dtype=torch.float64)
    assert calibration_error(confidence, torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)) == pytest.approx(0.1)
    assert calibration_error(confidence, torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)) == pytest.approx(0.9)


def swept(folder: Path, **changes: Any) -> list[Row]:
    members = [preset(name) for name in ("nanogpt_tiny", "llama_like", "retnet_like", "mamba2_like")]
    settings = settings_from(SearchSettings, SMALL | changes)
    with workplace(folder, "sweep", settings, members) as measurement:
        return sweep(measurement, members)


def comparable(rows: list[Row]) -> list[Any]:
    return [(row.name, row.steps, row.loss, row.status) for row in rows]


def test_a_sweep_is_the_same_with_any_number_of_workers_and_when_it_is_done_again(tmp_path: Path) -> None:
    first = swept(tmp_path / "one", workers=1, deep_steps=3, deep_seq_len=24)
    with Ledger.open(tmp_path / "one" / LEDGER, read_only=True) as ledger:
        runs = len(ledger.runs())
        reasons = [event.payload["what"] for event in ledger.events("decision")]
    assert comparable(swept(tmp_path / "two", workers=3, deep_steps=3, deep_seq_len=24)) == comparable(first)
    assert comparable(swept(tmp_path / "one", workers=2, deep_steps=3, deep_seq_len=24)) == comparable(first)
    with Ledger.open(tmp_path / "one" / LEDGER, read_only=True) as ledger:
        assert len(ledger.runs()) == runs
        assert ledger.integrity() == []
    assert "promoted by ASHA" in reasons
    with pytest.raises(ConfigError, match="other settings: pdh_steps 2"):
        swept(tmp_path / "one", pdh_steps=3, deep_steps=3, deep_seq_len=24)


def evolved(folder: Path, generations: int) -> tuple[list[Row], Generations]:
    members = [preset("nanogpt_tiny"), preset("llama_like")]
    given = SMALL | {"generations": generations, "population": 3, "top_k": 2, "immigrants": 1}
    settings = settings_from(EvolutionSettings, given)
    with workplace(folder, "evolve", settings, members) as measurement:
        run = Generations(measurement, members, settings, folder)
        rows = run.run()
    sentence = write_report(folder, "evolve", rows, run.known, members, run.origins)
    assert rows[0].name in sentence
    return rows, run


def test_an_evolution_writes_children_that_can_be_read_and_is_repeatable(tmp_path: Path) -> None:
    rows, run = evolved(tmp_path / "a", 1)
    files = sorted((tmp_path / "a" / "evolution" / "gen_1").glob("variant_*.yaml"))
    assert len(files) == 3
    read = {identity(load_architecture(file)) for file in files}
    assert read <= set(run.known)
    assert len({row.identity for row in rows}) == len(rows) == 5
    report = json.loads((tmp_path / "a" / "search_report.json").read_text())
    assert report["sketch"].startswith("flowchart TD")
    assert len(report["rows"]) == 5
    assert comparable(evolved(tmp_path / "a", 1)[0]) == comparable(rows)


def test_a_wrong_setting_is_told() -> None:
    with pytest.raises(ConfigError, match="did you mean 'asha_eta'"):
        settings_from(SearchSettings, {"asha_etta": 2})
    with pytest.raises(ConfigError, match="immigrants=9 exceed population=6"):
        settings_from(EvolutionSettings, {"immigrants": 9})

"""Fine-tuning by evolution strategies, on a small model with random weights: the loop, its replay and its errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("sacrebleu")

from data.translation import TranslationData, load_translation
from frameworks.noisers.noiser import Noiser, NoiserError, noiser
from models.fsmt.configuration import FsmtShape
from models.fsmt.error import TranslationError
from models.fsmt.loader import Translator, load_fsmt
from training.es_config import FinetuneConfig
from training.es_finetuning import Finetuning
from training.es_weights import learning_rate_share
from training.start_model import StartSection, train

SHAPE = FsmtShape(
    d_model=24, encoder_layers=1, decoder_layers=1, n_heads=2, ffn_dim=32, vocab_size=300, max_position_embeddings=48
)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data() -> TranslationData:
    return load_translation("embedded", "en", "de", max_train=300)


@pytest.fixture(scope="module")
def folder(data: TranslationData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model whose weights are random but large enough that its outputs vary."""
    made = train(StartSection(shape=SHAPE, steps=0), data)
    for parameter in made.model.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(2)
    path = tmp_path_factory.mktemp("start") / "model"
    made.save(path)
    return path


def _config(folder: Path, **changes: dict[str, Any]) -> FinetuneConfig:
    tree: dict[str, Any] = {
        "name": "small",
        "model": {"name": str(folder)},
        "evolution": {
            "sigma": 0.05,
            "generations_per_prompt": 4,
            "parallel_generations_per_gpu": 16,
            "averaging": 0.5,
            "solver": "adam",
            "lr_scale": 0.5,
        },
        "training": {"num_epochs": 4, "validate_every": 2, "log_output_every": 2},
        "task": {"max_train": 300, "validation_size": 8, "test_size": 8, "max_length": 16},
    }
    for section, values in changes.items():
        tree[section] = tree[section] | values
    return FinetuneConfig.model_validate(tree)


def _run(
    config: FinetuneConfig, data: TranslationData, directory: Path, **options: Any
) -> tuple[dict[str, Any], Translator]:
    translator = load_fsmt(config.model.name)
    found = options.pop("noiser", None) or noiser(config.evolution.noiser)
    return Finetuning(config, translator, data, found, directory, **options).run(), translator


def _weights(directory: Path) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in load_fsmt(str(directory)).model.named_parameters()}


def test_a_run_ends_in_a_report_a_log_and_a_model(folder: Path, data: TranslationData, tmp_path: Path) -> None:
    events: list[str] = []
    result, _ = _run(_config(folder), data, tmp_path, listener=lambda event, payload: events.append(event))
    assert events == ["validation", "epoch", "epoch", "epoch", "epoch", "test"]
    assert result["epochs"] == 4
    assert set(result["test"]) == {"start", "tuned", "p"}
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == [0, 1, 2, 3, 4]
    assert all(entry["deviation"] > 0 for entry in log[1:])  # members differ
    assert all(0.005 < entry["step"] < 1.5 for entry in log[1:])
    assert "validation" in log[2]
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert set(_weights(tmp_path / "model")) == set(_weights(folder))
    events.clear()
    again, _ = _run(_config(folder), data, tmp_path, listener=lambda event, payload: events.append(event))
    assert again == result
    assert events == ["resumed"]  # a finished run is shown, not repeated


def test_no_epochs_are_the_identity(folder: Path, data: TranslationData, tmp_path: Path) -> None:
    result, _ = _run(_config(folder, training={"num_epochs": 0}), data, tmp_path)
    before, after = _weights(folder), _weights(tmp_path / "model")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert result["test"]["start"] == result["test"]["tuned"]
    assert result["test"]["p"] == {"bleu": 1.0, "chrf": 1.0}


class _StopError(Exception):
    """Stands for a process that dies between two epochs."""


def test_a_resumed_run_has_the_same_bits(folder: Path, data: TranslationData, tmp_path: Path) -> None:
    config = _config(folder)
    whole, translator = _run(config, data, tmp_path / "whole")

    def stop(event: str, payload: Any) -> None:
        if event == "epoch" and payload["epoch"] == 3:
            raise _StopError

    with pytest.raises(_StopError):
        _run(config, data, tmp_path / "cut", listener=stop)
    resumed, again = _run(config, data, tmp_path / "cut")
    for (name, one), (_, other) in zip(
        translator.model.named_parameters(), again.model.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name
    assert {k: v for k, v in whole.items() if k != "cpu_seconds"} == {
        k: v for k, v in resumed.items() if k != "cpu_seconds"
    }


def test_chunks_of_members_change_nothing(folder: Path, data: TranslationData, tmp_path: Path) -> None:
    for noise in ({"rank": 3}, {"noiser": "open_es"}):
        found = []
        for place, chunk in enumerate((None, 6)):
            config = _config(folder, evolution={"members_per_forward": chunk, **noise}, training={"num_epochs": 2})
            _, translator = _run(config, data, tmp_path / f"{noise}{place}")
            found.append([parameter.clone() for parameter in translator.model.parameters()])
        assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_only_what_evolves_changes_and_overrides_set_its_step(
    folder: Path, data: TranslationData, tmp_path: Path
) -> None:
    config = _config(
        folder,
        model={"evolve_patterns": ["*.encoder.*.q_proj.weight", "*.decoder.*.fc1.weight"]},
        evolution={
            "averaging": 0.0,
            "solver": "sgd",
            "relative_sigma": False,
            "overrides": [{"pattern": "model.decoder.*", "lr_scale": 5.0}],
        },
        training={"num_epochs": 1, "validate_every": 1},
    )
    seen: list[dict[str, torch.Tensor]] = []
    translator = load_fsmt(str(folder))
    finetuning = Finetuning(config, translator, data, noiser("eggroll"), tmp_path)
    before = {name: value.clone() for name, value in translator.model.named_parameters()}
    seen.append(finetuning._weights.copy())
    progress, _ = finetuning._resume()
    finetuning._epoch(0, progress)
    changed = {
        name: float((value.detach() - before[name]).square().mean().sqrt())
        for name, value in translator.model.named_parameters()
        if not torch.equal(value, before[name])
    }
    encoder, decoder = sorted(changed)[1], sorted(changed)[0]
    assert sorted(changed) == [
        "model.decoder.layers.0.fc1.weight",
        "model.encoder.layers.0.self_attn.q_proj.weight",
    ]
    assert 2 < changed[decoder] / changed[encoder] < 12  # five times the step, within the noise of two matrices


def test_early_stop(folder: Path, data: TranslationData, tmp_path: Path) -> None:
    still = Noiser(
        name="still",
        noise="low_rank",
        shape_fitness=lambda raw, groups: raw,
        update=lambda A, B, s, f, sigma, lr, state: (torch.zeros(A.shape[1], B.shape[1]), state),
    )
    config = _config(
        folder, training={"num_epochs": 50, "validate_every": 1, "patience": 2}, evolution={"solver": "sgd"}
    )
    result, _ = _run(config, data, tmp_path, noiser=still)
    assert result["epochs"] == 2
    assert result["best_epoch"] == 0


def test_the_control_permutes_within_groups_only(folder: Path, data: TranslationData, tmp_path: Path) -> None:
    config = _config(folder, evolution={"permute_fitness": True})
    finetuning = Finetuning(config, load_fsmt(str(folder)), data, noiser("eggroll"), tmp_path)
    raw = torch.arange(16, dtype=torch.float64)
    seen = finetuning._weights._seen(3, raw)
    assert not torch.equal(seen, raw)
    assert torch.equal(seen.view(4, 4).sort(1).values, raw.view(4, 4))


def test_the_schedule_holds_and_then_falls() -> None:
    section = _config(Path("x")).evolution
    shares = [learning_rate_share(section, epoch, 10) for epoch in range(10)]
    assert shares[:6] == [1.0] * 6
    assert shares[-1] == pytest.approx(section.lr_final)
    assert shares == sorted(shares, reverse=True)


def test_other_settings_on_the_same_folder_are_refused(folder: Path, data: TranslationData, tmp_path: Path) -> None:
    _run(_config(folder, training={"num_epochs": 1}), data, tmp_path)
    with pytest.raises(TranslationError, match=r"other settings \(evolution.sigma was 0.05, now 0.1\)"):
        _run(_config(folder, training={"num_epochs": 1}, evolution={"sigma": 0.1}), data, tmp_path)


def test_a_noiser_that_breaks_its_contract_is_named(folder: Path, data: TranslationData, tmp_path: Path) -> None:
    good = noiser("eggroll")

    def broken(when: Callable[[int], bool]) -> Noiser:
        def update(A: Any, B: Any, s: Any, f: Any, sigma: float, lr: float, state: Any) -> Any:
            delta, state = good.update(A, B, s, f, sigma, lr, state)
            return (delta * float("nan") if when(A.shape[1]) else delta), state

        return Noiser(name="bad", noise="low_rank", shape_fitness=good.shape_fitness, update=update)

    with pytest.raises(NoiserError, match="noiser bad failed the check 'finite'"):
        _run(_config(folder), data, tmp_path / "always", noiser=broken(lambda width: True))
    assert not (tmp_path / "always").exists()
    with pytest.raises(NoiserError, match=r"noiser bad: the step of .*proj\.weight is not finite"):
        _run(_config(folder), data, tmp_path / "at one width", noiser=broken(lambda width: width == 24))


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("evolution", {"generations_per_prompt": 3}, "generations_per_prompt is 3; it must be even .* .nearest: 4"),
        ("evolution", {"parallel_generations_per_gpu": 18}, "which evolution.generations_per_prompt 4 does not divide"),
        ("evolution", {"sigma": 0.0}, "greater than 0"),
        ("evolution", {"sigma": float("nan")}, "greater than 0|finite"),
        ("evolution", {"sgima": 0.1}, "Extra inputs"),
        ("task", {"files": ["train"]}, "at least 3 items"),
    ],
)
def test_settings_that_are_refused(folder: Path, section: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _config(folder, **{section: values})


def test_refusals_write_nothing(folder: Path, data: TranslationData, tmp_path: Path) -> None:
    other = TranslationData(
        name="x", src_lang="en", tgt_lang="fr", train=data.train, validation=data.validation, test=data.test
    )
    with pytest.raises(TranslationError, match=r"the task translates en-fr and the model .* en-de"):
        _run(_config(folder), other, tmp_path / "run")
    frozen = _config(folder, model={"evolve_patterns": ["*.bias"]})
    with pytest.raises(TranslationError, match="leaves everything frozen"):
        _run(frozen, data, tmp_path / "run")
    many = _config(folder, evolution={"parallel_generations_per_gpu": 4000})
    with pytest.raises(TranslationError, match=r"an epoch draws 1000 prompts and the training split has \d+; use more"):
        _run(many, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


COMMAND = [sys.executable, "-m", "experiments.cli", "finetune"]


@pytest.mark.slow
def test_kill_9_and_resume(folder: Path, tmp_path: Path) -> None:
    """The real command, killed while it runs, ends with the weights of one that was left alone."""
    config = _config(folder, training={"num_epochs": 30})
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config.model_dump(mode="json")))  # JSON is YAML
    environment = os.environ | {"EVOSCALE_CACHE": str(tmp_path / "cache")}

    def command(runs: str) -> list[str]:
        return [*COMMAND, str(path), "--runs", str(tmp_path / runs)]

    process = subprocess.Popen(command("cut"), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    log = tmp_path / "cut" / "small" / "log.jsonl"
    give_up = time.monotonic() + 300
    while not (log.exists() and len(log.read_text().splitlines()) > 3) and time.monotonic() < give_up:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (log.parent / "result.json").exists()
    for runs in ("cut", "whole"):
        subprocess.run(command(runs), cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    files = [tmp_path / runs / "small" / "model" / "model.safetensors" for runs in ("cut", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()

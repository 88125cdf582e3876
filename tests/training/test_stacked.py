"""Stacked seeds agree with runs alone, fall back by themselves, and a diverging seed takes no other with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from data.corpus import Corpus
from frameworks.attention.shell import AttentionShell
from models.language_model import attention_class
from training.outcome import Completed
from training.run_spec import RunSpec
from training.stacked import train_stacked
from training.train import main
from training.trainer import Trainer

MakeSpec = Callable[..., RunSpec]
SOFTMAX = attention_class("coefficient_dynamics")


class Dropping(AttentionShell):
    """Draws random numbers, which vmap refuses."""

    def mix(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return nn.functional.dropout(v, 0.1, training=self.training)


class Counting(AttentionShell):
    """Moves a buffer."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__(d_model, n_heads)
        self.register_buffer("seen", torch.zeros(()))
        self.seen: Tensor

    def mix(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.seen += 1
        return v


@pytest.mark.parametrize("name", ["coefficient_dynamics", "test_time_regression", "matrix_mixer"])
@pytest.mark.parametrize("variant", ["standard", "evolvable"])
def test_stacked_seeds_agree_with_runs_alone(name: str, variant: str, corpus: Corpus, make_spec: MakeSpec) -> None:
    attention = attention_class(name, variant)
    specs = [make_spec(seed=seed, execution="stacked", weight_decay=0.1, steps=20, eval_every=10) for seed in (3, 4, 5)]
    result = train_stacked(specs, corpus, attention)
    assert result.fell_back is None
    for spec, stacked in zip(specs, result.outcomes, strict=True):
        alone = Trainer(spec.model_copy(update={"execution": "eager"}), corpus, attention).run()
        assert isinstance(stacked, Completed)
        assert isinstance(alone, Completed)
        for (step, train, val), (same_step, same_train, same_val) in zip(stacked.curve, alone.curve, strict=True):
            assert step == same_step
            assert train == pytest.approx(same_train, abs=2e-4)
            assert val == pytest.approx(same_val, abs=2e-4)
        assert (stacked.flops, stacked.tokens, stacked.n_parameters) == (
            alone.flops,
            alone.tokens,
            alone.n_parameters,
        )
    losses = [outcome.val_loss for outcome in result.outcomes if isinstance(outcome, Completed)]
    assert len(set(losses)) == 3


@pytest.mark.parametrize("attention", [Dropping, Counting])
def test_what_cannot_be_stacked_is_trained_alone_under_the_usual_key(
    attention: type[nn.Module], corpus: Corpus, make_spec: MakeSpec
) -> None:
    specs = [make_spec(seed=seed, execution="stacked", steps=4, eval_every=2) for seed in (3, 4)]
    result = train_stacked(specs, corpus, attention)
    assert result.fell_back
    for spec, outcome in zip(result.specs, result.outcomes, strict=True):
        assert spec.execution == "eager"
        alone = Trainer(spec, corpus, attention).run()
        assert isinstance(outcome, Completed)
        assert isinstance(alone, Completed)
        assert outcome.curve == alone.curve


def test_a_diverging_rate_is_told_for_every_seed(corpus: Corpus, make_spec: MakeSpec) -> None:
    specs = [make_spec(seed=s, execution="stacked", learning_rate=1e3, clip=0.0, warmup_fraction=0.0) for s in (3, 4)]
    result = train_stacked(specs, corpus, SOFTMAX)
    assert [outcome.status for outcome in result.outcomes] == ["diverged", "diverged"]


def test_only_seeds_may_differ(corpus: Corpus, make_spec: MakeSpec) -> None:
    with pytest.raises(ValueError, match="at least one"):
        train_stacked([], corpus, SOFTMAX)
    with pytest.raises(ValueError, match="takes 'stacked'"):
        train_stacked([make_spec()], corpus, SOFTMAX)
    pair = [make_spec(execution="stacked"), make_spec(execution="stacked", learning_rate=0.5)]
    with pytest.raises(ValueError, match="these differ in learning_rate"):
        train_stacked(pair, corpus, SOFTMAX)
    with pytest.raises(ValueError, match="train_stacked"):
        Trainer(pair[0], corpus, SOFTMAX)


def test_the_execution_is_part_of_the_key_and_the_old_keys_stay(make_spec: MakeSpec) -> None:
    eager, stacked, compiled = (make_spec(execution=kind) for kind in ("eager", "stacked", "compiled"))
    assert len({eager.key, stacked.key, compiled.key}) == 3
    assert eager.key == make_spec().key
    assert "execution" not in eager.canonical_json()
    assert RunSpec.model_validate_json(eager.canonical_json()).key == eager.key
    assert RunSpec.model_validate_json(stacked.canonical_json()).key == stacked.key


def test_the_command_leaves_a_history_a_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOSCALE_CACHE", str(tmp_path / "cache"))
    tiny = "--corpus stories --vocab-size 300 --max-bytes 100000 --d-model 16 --num-layers 1 --num-heads 2"
    more = "--batch-size 2 --seq-len 16 --eval-tokens 160 --device cpu --max-steps 4 --eval-frequency 2 --stack-seeds 2"
    out = tmp_path / "out"
    assert main([*tiny.split(), *more.split(), "--output-dir", str(out), "--json"]) == 0
    for seed in (42, 43):
        history = json.loads((out / f"seed-{seed}" / "history.json").read_text())
        assert history["spec"]["execution"] == "stacked"
        assert [row["step"] for row in history["curve"]] == [2, 4]
    assert main([*tiny.split(), *more.split(), "--compile"]) == 2

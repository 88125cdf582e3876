"""Guards on trained weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from evolution.guards.trained import check_trained
from frameworks.registry import framework
from models.language_model import LanguageModel, create_language_model
from tests.evolution.guards.block_template import mixer_block
from tests.evolution.guards.honest_blocks import HONEST

GATED = mixer_block(
    "return self.attend(q, k, v) * (1 + 0 * self.gate) + F.relu(self.gate - 1000) * v.roll(-1, 2)",
    "self.gate = nn.Parameter(torch.zeros(n_heads, 1, 1))",
)
OPEN = mixer_block("return torch.softmax(q @ k.transpose(-1, -2) * self.head_dim**-0.5, -1) @ v")


def model_of(block: str, vocab_size: int = 32) -> LanguageModel:
    program = framework("matrix_mixer").program(block)
    return create_language_model(
        "matrix_mixer",
        "evolved",
        vocab_size=vocab_size,
        d_model=32,
        n_layers=1,
        n_heads=2,
        seed=3,
        source=program.source,
    )


def test_an_honest_model_passes_all_and_is_not_changed() -> None:
    model = model_of(HONEST["gated decay from the input"]).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reports = check_trained(model, seq_len=32, canary_tokens=4096)
    assert [report.guard for report in reports] == [
        "trained_batch",
        "trained_prefix",
        "trained_prefix",
        "trained_canary",
    ]
    assert all(report.passed for report in reports)
    assert reports[1].evidence["largest"] < 1e-12
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float32


def test_a_gate_that_training_opened_is_found() -> None:
    model = model_of(GATED)
    assert check_trained(model, seq_len=32, canary_tokens=1024)[-1].passed
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gate"):
                parameter.fill_(1000.1)
    report = check_trained(model, seq_len=32)[-1]
    assert (report.guard, report.passed) == ("trained_prefix", False)
    assert report.evidence["leak"] > 1e-6


def test_a_leak_in_float32_only_is_found() -> None:
    # Telling the precisions apart by rounding is what no reading of the text can refuse.
    block = mixer_block(
        """
        coarse = ((torch.ones_like(v) + 1e-10) - 1 == 0).to(v.dtype)
        return self.attend(q, k, v) + 0.1 * coarse * v.roll(-1, 2)
        """
    )
    report = check_trained(model_of(block), seq_len=16)[-1]
    assert (report.guard, report.passed, report.evidence["precision"]) == ("trained_prefix", False, "torch.float32")


def test_a_neighbour_in_the_batch_is_found() -> None:
    report = check_trained(model_of(mixer_block("return self.attend(q, k, v + 0.01 * v.roll(1, 0))")), seq_len=16)[-1]
    assert (report.guard, report.passed) == ("trained_batch", False)


def test_the_canary_finds_a_model_that_scores_below_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(OPEN, vocab_size=8)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        tokens = torch.randint(0, 8, (16, 17), generator=generator)
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < math.log(8) - 0.1  # it learnt to read the next token
    from evolution.guards import trained

    report = check_trained(model, seq_len=16)[-1]
    assert (report.guard, report.passed) == ("trained_prefix", False)
    # With the prefix probe out of the way the canary alone must find it.
    silent = trained._pass("", {})
    monkeypatch.setattr(trained._TrainedProbe, "prefix", lambda self: silent)
    report = check_trained(model, seq_len=16)[-1]
    assert (report.guard, report.passed) == ("trained_canary", False)
    assert report.evidence["loss"] < report.evidence["ln_vocab"]


def test_the_canary_does_not_accuse_a_model_that_merely_fits_noise() -> None:
    for seed in range(5):
        report = check_trained(model_of(HONEST["identity"], 8), seq_len=16, probe_seed=seed, canary_tokens=512)[-1]
        assert report.passed, report


@pytest.mark.parametrize("wrong", [{"seq_len": 1}, {"seq_len": 8, "batch_size": 0}, {"seq_len": 8, "canary_tokens": 0}])
def test_impossible_arguments_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="seq_len must be at least 2"):
        check_trained(model_of(HONEST["identity"]), **wrong)

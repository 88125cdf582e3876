from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from frameworks.attention.shell import AttentionShell
from models.language_model import LanguageModel, create_language_model
from training.evaluation import evaluate

SIZES = {"vocab_size": 50, "d_model": 16, "n_layers": 1, "n_heads": 2}


def _windows(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    both = torch.randint(50, (count, 13), generator=generator)
    return both[:, :-1].contiguous(), both[:, 1:].contiguous()


@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
def test_mean_nats_a_token_whatever_the_batch(batch_size: int) -> None:
    model = create_language_model("matrix_mixer", **SIZES)
    x, y = _windows(7)
    expected = nn.functional.cross_entropy(model.double()(x).flatten(0, 1), y.flatten()).item()
    model.float()
    assert evaluate(model, x, y, batch_size=batch_size) == pytest.approx(expected, rel=1e-6)


def test_no_weights_gives_the_logarithm_of_the_vocabulary() -> None:
    model = create_language_model("matrix_mixer", **SIZES)
    nn.init.zeros_(model.embedding.weight)
    x, y = _windows(3)
    assert evaluate(model, x, y, batch_size=2) == pytest.approx(torch.tensor(50.0).log().item(), rel=1e-6)


class _Watches(AttentionShell):
    def mix(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        assert x.dtype == torch.float32
        return v


def test_inference_mode_fp32_and_back_to_training() -> None:
    model = LanguageModel(_Watches, **SIZES)
    x, y = _windows(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        evaluate(model, x, y, batch_size=2)
    assert model.training
    assert not torch.is_inference_mode_enabled()

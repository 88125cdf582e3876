from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from frameworks.registry import framework
from models.language_model import LanguageModel, create_language_model
from training.flops import forward_flops, measured_flops, training_flops
from training.run_spec import RunSpec

MakeSpec = Callable[..., RunSpec]
SHAPES = [(32, 2, 512, 64), (48, 3, 300, 33), (144, 4, 1000, 128)]


def _model(d_model: int, n_layers: int, vocab_size: int, variant: str = "standard") -> LanguageModel:
    return create_language_model(
        "matrix_mixer", variant, vocab_size=vocab_size, d_model=d_model, n_layers=n_layers, n_heads=d_model // 16
    )


def _tokens(batch: int, length: int) -> Tensor:
    return torch.zeros(batch, length, dtype=torch.long)


@pytest.mark.parametrize("variant", ["standard", "evolvable"])
@pytest.mark.parametrize("shape", SHAPES)
def test_analytic_count_is_torchs_within_one_percent(shape: tuple[int, int, int, int], variant: str) -> None:
    d_model, n_layers, vocab_size, seq_len = shape
    model = _model(d_model, n_layers, vocab_size, variant)
    forward = forward_flops(d_model=d_model, n_layers=n_layers, vocab_size=vocab_size, seq_len=seq_len)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss = model(_tokens(1, seq_len)).sum()
    assert abs(counter.get_total_flops() / forward - 1) < 0.01
    with counter, sdpa_kernel(SDPBackend.MATH):
        model(_tokens(1, seq_len)).sum().backward()
    assert abs(counter.get_total_flops() / (3 * forward) - 1) < 0.01
    assert loss.isfinite()


@pytest.mark.parametrize("shape", SHAPES)
def test_measured_count_of_the_reference_is_the_analytic(shape: tuple[int, int, int, int], make_spec: MakeSpec) -> None:
    d_model, n_layers, vocab_size, seq_len = shape
    x = _tokens(2, seq_len)
    measured = measured_flops(_model(d_model, n_layers, vocab_size), x, x)
    spec = make_spec(
        d_model=d_model,
        n_layers=n_layers,
        n_heads=1,
        vocab_size=vocab_size,
        seq_len=seq_len,
        steps=10,
        batch_size=2,
        eval_tokens=999,
    )
    assert abs(10 * measured / training_flops(spec) - 1) < 0.01


def test_a_candidate_that_multiplies_more_is_counted_higher() -> None:
    source = framework("matrix_mixer").pristine.replace(
        "return self.output(x, v, y)", "return self.output(x, v, y + self.mixing_matrix(x, q, k) @ y)"
    )
    dear = create_language_model(
        "matrix_mixer", "evolved", source=source, vocab_size=64, d_model=32, n_layers=1, n_heads=2
    )
    x = _tokens(1, 32)
    extra = measured_flops(dear, x, x) - measured_flops(_model(32, 1, 64, "evolvable"), x, x)
    assert extra == 3 * 2 * (2 * 32 * 32 * 32)  # two more T x T products, forward and backward


def test_measuring_leaves_no_trace() -> None:
    model = _model(32, 1, 64)
    before = [parameter.clone() for parameter in model.parameters()]
    state = torch.get_rng_state()
    measured_flops(model, _tokens(1, 8), _tokens(1, 8))
    assert torch.equal(torch.get_rng_state(), state)
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert parameter.grad is None
        assert torch.equal(parameter, value)

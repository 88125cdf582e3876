"""Every fast form against its naive oracle: outputs and gradients, odd lengths, split states, one token."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from models.pipeline import decayed_attention, delta_rule
from models.pipeline.convolution import CausalConvolution

Form = Callable[[], tuple[Tensor, Tensor]]
LENGTHS = (1, 63, 257)
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def draw(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()


def results(form: Form, inputs: list[Tensor]) -> list[Tensor]:
    y, state = form()
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    gradients = torch.autograd.grad((y * weights).sum() + 0.3 * state.sum(), inputs)
    return [y, state, *gradients]


def distance(form: Form, expected: list[Tensor], inputs: list[Tensor]) -> float:
    """The largest difference of outputs and gradients, each relative to its own largest value."""
    pairs = zip(results(form, inputs), expected, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-3)) for a, b in pairs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("decay", ["none", "constant", "each"])
@pytest.mark.parametrize("shared", [False, True])
def test_decayed_attention_forms_agree(dtype: torch.dtype, length: int, decay: str, shared: bool) -> None:
    heads = 3
    q, k = (draw(2, 1 if shared else heads, length, 5, dtype=dtype, seed=s) for s in (1, 2))
    v, state = draw(2, heads, length, 7, dtype=dtype, seed=3), draw(2, heads, 5, 7, dtype=dtype, seed=4)
    rates = draw(2, heads, length, dtype=dtype, seed=5)
    inputs = [q, k, v, state, *([rates] if decay == "each" else [])]

    def log_decay() -> Tensor | None:
        if decay == "each":
            return -rates.square()
        return None if decay == "none" else torch.log1p(-(2.0 ** (-2 - torch.arange(heads, dtype=dtype))))

    expected = results(lambda: decayed_attention.recurrent(q, k, v, log_decay(), state), inputs)
    forms: list[Form] = [lambda: decayed_attention.parallel(q, k, v, log_decay(), state)]
    forms += [lambda c=c: decayed_attention.chunkwise(q, k, v, log_decay(), c, state) for c in (1, 8, 64, 100)]
    for form in forms:
        assert distance(form, expected, inputs) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("gated", [False, True])
def test_delta_rule_forms_agree(dtype: torch.dtype, length: int, gated: bool) -> None:
    q, keys, v = (draw(2, 2, length, width, dtype=dtype, seed=s) for s, width in ((1, 6), (2, 6), (3, 5)))
    rate, rates = draw(2, 2, length, dtype=dtype, seed=4), draw(2, 2, length, dtype=dtype, seed=5)
    state = draw(2, 2, 6, 5, dtype=dtype, seed=6)
    inputs = [q, keys, v, rate, state, *([rates] if gated else [])]

    def decay() -> Tensor | None:
        return -0.1 * rates.square() if gated else None

    expected = results(
        lambda: delta_rule.recurrent(q, F.normalize(keys, dim=-1), v, torch.sigmoid(rate), decay(), state), inputs
    )
    for chunk in (1, 8, 32, 100):

        def form(chunk: int = chunk) -> tuple[Tensor, Tensor]:
            return delta_rule.delta_rule(
                q, F.normalize(keys, dim=-1), v, torch.sigmoid(rate), decay(), chunk=chunk, state=state
            )

        assert distance(form, expected, inputs) < TOLERANCE[dtype]


def test_a_state_may_be_split_anywhere() -> None:
    q, k, v = (draw(1, 2, 97, 4, dtype=torch.float64, seed=s).detach() for s in (1, 2, 3))
    g = -torch.rand(1, 2, 97, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole, end = decayed_attention.chunkwise(q, k, v, g, 16)
    first, middle = decayed_attention.chunkwise(q[:, :, :41], k[:, :, :41], v[:, :, :41], g[..., :41], 16)
    second, last = decayed_attention.parallel(q[:, :, 41:], k[:, :, 41:], v[:, :, 41:], g[..., 41:], middle)
    torch.testing.assert_close(torch.cat([first, second], 2), whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(last, end, rtol=1e-10, atol=1e-10)


def test_a_strong_decay_does_not_overflow() -> None:
    q, k, v = (draw(1, 1, 200, 4, dtype=torch.float32, seed=s) for s in (1, 2, 3))
    g = torch.full((1, 1, 200), -50.0)
    y, state = decayed_attention.chunkwise(q, k, v, g, 64)
    (y.sum() + state.sum()).backward()
    assert all(bool(t.isfinite().all()) for t in (y, state, q.grad, k.grad, v.grad) if t is not None)


@pytest.mark.parametrize("kernel", [1, 4, 9, 40])
def test_convolutions_agree(kernel: int) -> None:
    convolution = CausalConvolution(6, kernel).double()
    torch.nn.init.normal_(convolution.weight, generator=torch.Generator().manual_seed(1))
    x = draw(2, 33, 6, dtype=torch.float64, seed=1)
    past, steps = convolution.begin(2), []
    for t in range(33):
        y, past = convolution.step(x[:, t : t + 1], past)
        steps.append(y)
    whole, naive = convolution(x), convolution.naive(x)
    torch.testing.assert_close(whole, naive, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(torch.cat(steps, 1), naive, rtol=1e-9, atol=1e-9)
    for form in (whole, naive):
        gradient = torch.autograd.grad(form.square().sum(), convolution.weight, retain_graph=True)[0]
        expected = torch.autograd.grad(naive.square().sum(), convolution.weight, retain_graph=True)[0]
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)


def test_the_dispatch_takes_the_parallel_form_for_short_sequences() -> None:
    assert decayed_attention.form_of(128, None) is None
    assert decayed_attention.form_of(257, None) == decayed_attention.CHUNK
    assert decayed_attention.form_of(100, 32) == 32

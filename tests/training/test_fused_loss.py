"""The fused loss against the naive oracle: values, every gradient, and what it may never hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from training.fused_loss import (
    IGNORE_INDEX,
    fused_linear_cross_entropy,
    naive_linear_cross_entropy,
    summed_linear_cross_entropy,
)

SHAPES = [(1, 1, 2), (63, 17, 101), (64, 60, 257), (130, 32, 512), (7, 49, 33)]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def _case(
    n: int, c: int, v: int, dtype: torch.dtype, ignored: bool = False, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n * 1000 + v)
    hidden = (scale * torch.randn(n, c, generator=generator, dtype=dtype)).requires_grad_()
    weight = torch.randn(v, c, generator=generator, dtype=dtype).requires_grad_()
    targets = torch.randint(v, (n,), generator=generator)
    if ignored:
        targets[::3] = IGNORE_INDEX
    return hidden, weight, targets


def _compare(case: tuple[Tensor, Tensor, Tensor], **settings: Any) -> None:
    hidden, weight, targets = case
    tolerance = TOLERANCE[hidden.dtype]
    expected = naive_linear_cross_entropy(hidden, weight, targets)
    actual = fused_linear_cross_entropy(hidden, weight, targets, **settings)
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    wanted = torch.autograd.grad(3.0 * expected, (hidden, weight))
    found = torch.autograd.grad(3.0 * actual, (hidden, weight))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("chunk", [None, 1, 10, 64])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradients(shape: tuple[int, int, int], chunk: int | None, dtype: torch.dtype) -> None:
    _compare(_case(*shape, dtype), chunk_rows=chunk)
    _compare(_case(*shape, dtype), chunk_rows=chunk, ignore_index=None)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("chunk", [None, 10])
def test_ignored_rows_count_neither_in_sum_nor_mean(chunk: int | None, dtype: torch.dtype) -> None:
    for shape in SHAPES[1:]:
        _compare(_case(*shape, dtype, ignored=True), chunk_rows=chunk)


def test_another_ignore_index() -> None:
    hidden, weight, targets = _case(20, 5, 9, torch.float64)
    marked = torch.where(targets == 4, IGNORE_INDEX, targets)
    actual = fused_linear_cross_entropy(hidden, weight, targets, ignore_index=4)
    torch.testing.assert_close(actual, naive_linear_cross_entropy(hidden, weight, marked))


def test_all_rows_ignored_is_nan_as_in_torch() -> None:
    hidden, weight, targets = _case(6, 5, 9, torch.float64)
    targets = torch.full_like(targets, IGNORE_INDEX)
    assert naive_linear_cross_entropy(hidden, weight, targets).isnan()
    assert fused_linear_cross_entropy(hidden, weight, targets).isnan()


def test_gradcheck() -> None:
    hidden, weight, targets = _case(7, 4, 6, torch.float64, ignored=True)

    def loss(h: Tensor, w: Tensor) -> Tensor:
        return fused_linear_cross_entropy(h, w, targets, chunk_rows=3)

    assert torch.autograd.gradcheck(loss, (hidden, weight))


def test_large_logits_do_not_overflow() -> None:
    _compare(_case(40, 16, 50, torch.float64, scale=200.0), chunk_rows=16)
    hidden, weight, targets = _case(40, 16, 50, torch.float32, scale=200.0)
    assert torch.isfinite(fused_linear_cross_entropy(hidden, weight, targets))


def test_a_broken_model_gives_a_loss_that_is_not_finite() -> None:
    hidden, weight, targets = _case(5, 4, 6, torch.float32)
    with torch.no_grad():
        hidden[2, 1] = float("nan")
    assert not torch.isfinite(fused_linear_cross_entropy(hidden, weight, targets))


def test_batched_shapes_and_a_repeated_backward() -> None:
    hidden, weight, targets = _case(24, 6, 11, torch.float64)
    loss = fused_linear_cross_entropy(hidden.view(2, 3, 4, 6), weight, targets.view(2, 3, 4))
    torch.testing.assert_close(loss, naive_linear_cross_entropy(hidden, weight, targets))
    first = torch.autograd.grad(loss, (hidden, weight), retain_graph=True)
    second = torch.autograd.grad(loss, (hidden, weight))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("frozen", [0, 1])
def test_only_the_gradient_that_is_needed(frozen: int) -> None:
    inputs = list(_case(24, 6, 11, torch.float64))
    wanted = torch.autograd.grad(naive_linear_cross_entropy(*inputs), inputs[1 - frozen])[0]
    inputs[frozen] = inputs[frozen].detach()
    found = torch.autograd.grad(fused_linear_cross_entropy(*inputs), inputs[1 - frozen])[0]
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


class _Largest(TorchDispatchMode):
    """Remembers the most elements any tensor had."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple) else (result,):
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return result


def test_full_logits_are_never_held() -> None:
    n, c, v, chunk = 600, 8, 1000, 50
    hidden, weight, targets = _case(n, c, v, torch.float32)
    with _Largest() as naive:
        naive_linear_cross_entropy(hidden, weight, targets).backward()
    with _Largest() as fused:
        fused_linear_cross_entropy(hidden, weight, targets, chunk_rows=chunk).backward()
    assert naive.elements == n * v
    assert fused.elements == chunk * v


def test_autocast_runs_the_products_in_bf16_and_the_loss_in_fp32() -> None:
    hidden, weight, targets = _case(130, 32, 200, torch.float32)
    exact = fused_linear_cross_entropy(hidden, weight, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = fused_linear_cross_entropy(hidden, weight, targets, chunk_rows=64)
    assert half.dtype == torch.float32
    assert 0 < abs(half.item() - exact.item()) < 0.05
    wanted = torch.autograd.grad(exact, (hidden, weight))
    found = torch.autograd.grad(half, (hidden, weight))
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize("chunk", [None, 7])
def test_summed_loss_is_the_mean_times_the_rows_in_fp64(chunk: int | None) -> None:
    hidden, weight, targets = _case(63, 17, 101, torch.float32)
    total = summed_linear_cross_entropy(hidden, weight, targets, chunk_rows=chunk)
    assert total.dtype == torch.float64
    assert not total.requires_grad
    expected = naive_linear_cross_entropy(hidden.double(), weight.double(), targets) * 63
    torch.testing.assert_close(total, expected.detach(), rtol=1e-6, atol=0)


def test_shapes_that_do_not_fit_are_told() -> None:
    hidden, weight, targets = _case(6, 5, 9, torch.float32)
    with pytest.raises(ValueError, match=r"hidden \(6, 5\), weight \(9, 5\) and targets \(5,\) do not fit"):
        fused_linear_cross_entropy(hidden, weight, targets[:5])
    with pytest.raises(ValueError, match="chunk_rows=0"):
        fused_linear_cross_entropy(hidden, weight, targets, chunk_rows=0)

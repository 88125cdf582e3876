"""The flat optimizer against torch's own on separate parameters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from training.optimizer import FlatAdamW
from training.run_spec import RunSpec

MakeSpec = Callable[..., RunSpec]


def _model(seed: int = 1) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(7, 5), nn.LayerNorm(5), nn.Linear(5, 3, bias=False))


def _backward(model: nn.Module, step: int) -> None:
    x = torch.randn(11, 7, generator=torch.Generator().manual_seed(step))
    (model(x).pow(2).sum() * 3).backward()


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("clip", [0.0, 0.1, 1e6])
def test_same_weights_as_torch_adamw_with_clipping(make_spec: MakeSpec, weight_decay: float, clip: float) -> None:
    flat, plain = _model(), _model()
    spec = make_spec(weight_decay=weight_decay, clip=clip)
    ours = FlatAdamW(flat.parameters(), spec)
    groups = [
        {"params": [p for p in plain.parameters() if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in plain.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95), eps=1e-8)
    for step in range(5):
        rate = 0.01 * (step + 1)
        ours.zero_grad()
        theirs.zero_grad()
        _backward(flat, step)
        _backward(plain, step)
        if clip:
            nn.utils.clip_grad_norm_(plain.parameters(), clip)
        for group in theirs.param_groups:
            group["lr"] = rate
        ours.step(rate)
        theirs.step()
    for one, other in zip(flat.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert (next(flat.parameters()) - next(_model().parameters())).abs().max() > 0.01


def test_flattening_keeps_the_weights_and_aligns_them(make_spec: MakeSpec) -> None:
    model, before = _model(), _model()
    FlatAdamW(model.parameters(), make_spec())
    for one, other in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.data_ptr() % 64 == 0
        assert one.is_contiguous()


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_state_carries_over_to_the_last_bit(make_spec: MakeSpec, weight_decay: float) -> None:
    spec = make_spec(weight_decay=weight_decay)
    model = _model()
    optimizer = FlatAdamW(model.parameters(), spec)
    assert optimizer.state() == {}
    for step in range(3):
        optimizer.zero_grad()
        _backward(model, step)
        optimizer.step(0.01)

    twin = _model(seed=2)
    other = FlatAdamW(twin.parameters(), spec)
    with torch.no_grad():
        for one, two in zip(twin.parameters(), model.parameters(), strict=True):
            one.copy_(two)
    other.load_state(optimizer.state())
    for module, opt in ((model, optimizer), (twin, other)):
        opt.zero_grad()
        _backward(module, 3)
        opt.step(0.01)
    for one, two in zip(twin.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_parameters_without_gradient_stay(make_spec: MakeSpec) -> None:
    model = _model()
    model[0].requires_grad_(False)
    unused = nn.Parameter(torch.ones(4))
    optimizer = FlatAdamW([*model.parameters(), unused], make_spec())
    before = model[0].weight.clone()
    _backward(model, 1)
    optimizer.step(0.1)
    assert torch.equal(model[0].weight, before)
    assert torch.equal(unused, torch.ones(4))
    assert not torch.equal(model[2].weight, _model()[2].weight)


def test_what_cannot_be_trained_is_told(make_spec: MakeSpec) -> None:
    with pytest.raises(ValueError, match="no trainable parameters"):
        FlatAdamW([], make_spec())
    with pytest.raises(TypeError, match=r"shape \(3,\) is torch.float64; only torch.float32"):
        FlatAdamW([nn.Parameter(torch.zeros(3, dtype=torch.float64))], make_spec())


def test_state_of_other_parameters_is_refused(make_spec: MakeSpec) -> None:
    optimizer = FlatAdamW(_model().parameters(), make_spec())
    with pytest.raises(ValueError, match=r"shape \(3,\), expected"):
        optimizer.load_state({"0.exp_avg": torch.zeros(3)})
    with pytest.raises(ValueError, match="has a group 4; this model has 1"):
        optimizer.load_state({"4.exp_avg": torch.zeros(3)})

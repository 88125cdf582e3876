"""What every proposed block must fulfil, checked on the real frameworks in float64."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from evolution.proposers.operators.catalogue import operators_for
from evolution.proposers.operators.parameter_cap import SHAPES, parameter_cap
from frameworks.registry import Framework, framework

FRAMEWORKS = ("coefficient_dynamics", "test_time_regression", "matrix_mixer")


@dataclass(frozen=True)
class BlockFacts:
    """Measured on one block: distance from softmax at its start, leaks, parameters without a gradient."""

    start_distance: float
    time_leak: float
    batch_leak: float
    dead: list[str]
    over_cap: list[tuple[int, int]]
    finite: bool


def _draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _built(kind: Any, d_model: int, n_heads: int) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module: torch.nn.Module = kind(d_model, n_heads).double()
    return module


def measure_block(owner: Framework, block: str) -> BlockFacts:
    """Build the block in its framework and measure what the contract asks."""
    module = owner.program(block).load()
    evolvable, standard = getattr(module, owner.evolvable_class), getattr(module, owner.standard_class)
    over_cap = []
    for d_model, n_heads in SHAPES:
        added = sum(p.numel() for p in evolvable(d_model, n_heads).mixer.parameters())
        if added > parameter_cap(d_model):
            over_cap.append((d_model, added))
    layer, reference = _built(evolvable, 32, 2), _built(standard, 32, 2)
    reference.load_state_dict({k: v for k, v in layer.state_dict().items() if not k.startswith("mixer.")})
    x = _draw(3, 14, 32, seed=1)
    start_distance = float((layer(x) - reference(x)).detach().abs().max())
    mixer = layer.mixer
    assert isinstance(mixer, torch.nn.Module)
    for index, parameter in enumerate(mixer.parameters()):
        parameter.data += 0.3 * _draw(*parameter.shape, seed=10 + index)
    y = layer(x)
    changed = x.clone()
    changed[:, 8:] += 5.0 * _draw(3, 6, 32, seed=2)
    time_leak = float((layer(changed) - y)[:, :8].detach().abs().max())
    batch_leak = float((layer(x[1:2]) - y[1:2]).detach().abs().max())
    y.square().sum().backward()
    dead = [
        name
        for name, parameter in mixer.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.isfinite().all()) or not bool(parameter.grad.any())
    ]
    return BlockFacts(start_distance, time_leak, batch_leak, dead, over_cap, bool(y.isfinite().all()))


def check_block(owner: Framework, block: str) -> BlockFacts:
    """Measure the block and fail on any breach of the contract."""
    facts = measure_block(owner, block)
    assert facts.finite, block
    assert facts.time_leak < 1e-9, block
    assert facts.batch_leak < 1e-9, block
    assert facts.dead == [], block
    assert facts.over_cap == [], block
    return facts


def grow(owner: Framework, rng: random.Random, depth: int, block: str | None = None) -> tuple[str, list[str]]:
    """`depth` operators of the catalogue on top of a block, and their names."""
    code = owner.start_block if block is None else block
    names: list[str] = []
    while len(names) < depth:
        entry = rng.choice(operators_for(owner.name))
        edited = entry.apply(code, owner.name, rng)
        if edited is not None:
            code = edited
            names.append(entry.name)
    return code, names


@pytest.fixture
def check() -> Callable[[Framework, str], BlockFacts]:
    """`check_block`, for tests in any folder below."""
    return check_block


@pytest.fixture
def chain() -> Callable[..., tuple[str, list[str]]]:
    """`grow`, for tests in any folder below."""
    return grow


@pytest.fixture(params=FRAMEWORKS)
def owner(request: pytest.FixtureRequest) -> Framework:
    """Each attention framework in turn."""
    return framework(request.param)


@pytest.fixture
def regression() -> Framework:
    """One framework, where one is enough."""
    return framework("test_time_regression")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small tensors are slower on several threads."""
    torch.set_num_threads(1)

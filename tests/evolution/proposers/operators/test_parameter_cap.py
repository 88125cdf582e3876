"""Parameters read from a block's text are the parameters it has."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from evolution.proposers.operators.parameter_cap import SHAPES, count_parameters, parameter_cap, within_parameter_cap
from frameworks.registry import Framework, framework

TEMPLATE = "class Regressor(nn.Module):\n    def __init__(self, d_model, n_heads, head_dim):\n        {statement}\n"


def test_counts_agree_with_the_built_module(owner: Framework, chain: Callable[..., Any]) -> None:
    for seed in range(5):
        block, _ = chain(owner, random.Random(seed), 3)
        build = getattr(owner.program(block).load(), owner.block_class)
        for d_model, n_heads in SHAPES:
            built = sum(p.numel() for p in build(d_model, n_heads, d_model // n_heads).parameters())
            assert count_parameters(block, owner.name, d_model, n_heads) == built


@pytest.mark.parametrize(
    ("statement", "count"),
    [
        ("self.a = nn.Parameter(torch.zeros(3, n_heads, 1, 4, 1))", 24),
        ("self.a = nn.Parameter(torch.full((n_heads, 1), 2.0))", 2),
        ("self.a = nn.Parameter(torch.eye(n_heads))", 4),
        ("self.a = nn.Parameter(torch.ones([n_heads, head_dim // 2]))", 16),
        ("self.a = nn.Linear(d_model, n_heads)", 66),
        ("self.a = nn.Linear(d_model, n_heads, bias=False)", 64),
        ("self.a = nn.Linear(self.d_model, 2 * n_heads - 1, bias=True)", 99),
        ("self.a = nn.Parameter(torch.zeros(unknown()))", 0),
        ("self.a = nn.ParameterList([nn.Parameter(torch.zeros(2)) for _ in 'ab'])", 2),
        ("self.a = nn.Parameter(0.02 * torch.randn(n_heads, 8))", 16),
        ("self.a = 3", 0),
    ],
)
def test_what_is_counted(statement: str, count: int) -> None:
    assert count_parameters(TEMPLATE.format(statement=statement), "test_time_regression", 32, 2) == count


def test_the_cap_is_one_percent_of_the_reference() -> None:
    """12 C^2 of the layer's weights; the demo's smallest reference has 12,448 parameters a layer."""
    assert parameter_cap(32) == 122
    assert parameter_cap(32) <= 0.01 * 24_896 / 2
    wide = TEMPLATE.format(statement="self.a = nn.Parameter(torch.zeros(123))")
    assert not within_parameter_cap(wide, "test_time_regression")
    assert within_parameter_cap(framework("test_time_regression").start_block, "test_time_regression")

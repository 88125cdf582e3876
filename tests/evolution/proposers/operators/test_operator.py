"""Every operator alone, on every framework it names."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable
from typing import Any

import pytest

from evolution.proposers.operators.catalogue import catalogue, operators_for
from evolution.proposers.operators.operator import Operator
from frameworks.program import block_diff
from frameworks.registry import Framework, framework

PAIRS = [(entry.name, name) for entry in catalogue().values() for name in entry.frameworks]

CHANGES_THE_START = {
    "smear_gate",
    "qk_rms_norm",
    "cosine_attention",
    "key_norm",
    "rope",
    "partial_rope",
    "delta_rule",
    "alibi",
    "adaptive_span",
    "multiscale_decay",
    "logit_soft_cap",
    "forgetting_gate",
    "implicit_step",
    "stick_breaking",
    "rectified_power",
    "sigmoid_coefficients",
    "linear_attention",
    "taylor_kernel",
    "sparsemax",
    "attention_sink",
    "top_k",
    "local_window",
    "differential",
    "uniform_mixture",
    "head_rms_norm",
    "scalar_transition",
    "forgetting_factor",
}

REPLACES_A_STATEMENT = {
    "rectified_power",
    "sigmoid_coefficients",
    "linear_attention",
    "taylor_kernel",
    "sparsemax",
    "attention_sink",
    "scalar_transition",
    "forgetting_factor",
    "toeplitz_structure",
}


def _apply(entry: Operator, owner: Framework, seed: int = 0) -> str:
    block = entry.apply(owner.start_block, owner.name, random.Random(seed))
    assert block is not None
    return block


@pytest.mark.parametrize(("name", "framework_name"), PAIRS)
def test_an_operator_keeps_the_contract(name: str, framework_name: str, check: Callable[..., Any]) -> None:
    owner, entry = framework(framework_name), catalogue()[name]
    block = _apply(entry, owner)
    facts = check(owner, block)
    assert owner.program(block).identity != owner.program().identity
    diff = block_diff(owner.start_block, block).splitlines()[2:]
    added = [line for line in diff if line.startswith("+")]
    assert all(line.endswith(f"  # {name}") and len(line) <= 121 for line in added)
    assert any(line.startswith("-") for line in diff) == (name in REPLACES_A_STATEMENT)
    if name not in CHANGES_THE_START:
        assert facts.start_distance < 1e-12
    assert entry.apply(block, owner.name, random.Random(1)) is None, "applied twice"


@pytest.mark.slow
@pytest.mark.parametrize("framework_name", ["coefficient_dynamics", "test_time_regression", "matrix_mixer"])
def test_every_draw_of_every_operator_keeps_the_contract(framework_name: str, check: Callable[..., Any]) -> None:
    owner = framework(framework_name)
    for entry in operators_for(owner.name):
        blocks = {_apply(entry, owner, seed) for seed in range(40)}
        for block in sorted(blocks):
            check(owner, block)


def test_choices_make_different_programs(regression: Framework) -> None:
    convolution = catalogue()["short_convolution"]
    assert len({_apply(convolution, regression, seed) for seed in range(60)}) > 15


def test_a_foreign_framework_is_declined(regression: Framework) -> None:
    transition = catalogue()["scalar_transition"]
    assert transition.apply(regression.start_block, "test_time_regression", random.Random(0)) is None
    assert transition.apply(regression.start_block, "no_such_framework", random.Random(0)) is None


def test_the_parameter_cap_is_kept(owner: Framework) -> None:
    """Two projections of the input fit at d_model 32, a third would pass the cap."""
    wide = ["value_gate", "input_gate", "output_gate", "query_temperature", "forgetting_gate"]
    code, taken = owner.start_block, 0
    for name in wide:
        edited = catalogue()[name].apply(code, owner.name, random.Random(0))
        if edited is not None:
            code, taken = edited, taken + 1
    assert taken == 3


def test_the_check_sees_a_leak(regression: Framework, check: Callable[..., Any]) -> None:
    """The checks of this folder would notice a mean over the whole sequence, a batch mean and a dead parameter."""
    cheats = {
        "y = y + v.mean(-2, keepdim=True)": "time_leak",
        "y = y + y.mean(0, keepdim=True)": "batch_leak",
    }
    for statement in cheats:
        block = regression.start_block.replace("        return y\n", f"        {statement}\n        return y\n")
        with pytest.raises(AssertionError):
            check(regression, block)
    dead = regression.start_block.replace(
        "        self.head_dim = head_dim\n",
        "        self.head_dim = head_dim\n        self.unused = nn.Parameter(torch.zeros(3))\n",
    )
    with pytest.raises(AssertionError):
        check(regression, dead)


def test_local_names_of_operators_do_not_collide() -> None:
    """Two operators may only share a local name if they exclude each other."""
    owner = framework("test_time_regression")
    seen: dict[str, str] = {}
    for entry in operators_for(owner.name):
        lines = [line for line in _apply(entry, owner).splitlines() if line.endswith(f"# {entry.name}")]
        body = ast.parse("\n".join(line.strip() for line in lines if not line.strip().startswith("return ")))
        names = {
            node.id for node in ast.walk(body) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        } - {"q", "k", "v", "s", "w", "y"}
        for name in names:
            other = seen.setdefault(name, entry.name)
            assert {other, entry.name} in ({entry.name}, {"rope", "partial_rope"}), name

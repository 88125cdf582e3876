"""Recombination of two blocks."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from evolution.proposers.operators.catalogue import catalogue
from evolution.proposers.operators.simplification import present_operators
from evolution.proposers.recombination import recombine
from frameworks.program import normalise_block
from frameworks.registry import Framework


def _with(owner: Framework, *names: str) -> str:
    block = owner.start_block
    for name in names:
        edited = catalogue()[name].apply(block, owner.name, random.Random(0))
        assert edited is not None
        block = edited
    return block


def _children(a: str, b: str, owner: Framework, count: int = 12) -> list[str]:
    found = [recombine(a, b, owner.name, random.Random(seed)) for seed in range(count)]
    return [child for child in found if child is not None]


def test_a_child_has_something_of_both(owner: Framework, check: Callable[..., Any]) -> None:
    a, b = _with(owner, "value_skip", "distance_bias"), _with(owner, "short_convolution", "talking_heads")
    children = set(_children(a, b, owner))
    assert len(children) >= 3
    both = 0
    for child in sorted(children):
        check(owner, child)
        present = set(present_operators(child, owner.name))
        both += bool(present & {"value_skip", "distance_bias"}) and bool(
            present & {"short_convolution", "talking_heads"}
        )
    assert both >= 2


def test_random_pairs_give_legal_children(
    owner: Framework, chain: Callable[..., Any], check: Callable[..., Any]
) -> None:
    made = 0
    for seed in range(5):
        rng = random.Random(seed)
        a, _ = chain(owner, rng, rng.randint(0, 3))
        b, _ = chain(owner, rng, rng.randint(1, 3))
        child = recombine(a, b, owner.name, rng)
        if child is None:
            continue
        made += 1
        assert normalise_block(child) not in (normalise_block(a), normalise_block(b))
        check(owner, child)
    assert made >= 3


def test_a_method_of_a_foreign_style_comes_with_what_it_needs(regression: Framework, check: Callable[..., Any]) -> None:
    b = regression.start_block.replace(
        "        self.head_dim = head_dim\n",
        "        self.head_dim = head_dim\n        self.width = 0.5 * head_dim\n"
        "        self.taste = nn.Parameter(torch.ones(n_heads, 1, 1))\n",
    ).replace(
        "        return y\n\n",
        "        return self.seasoned(y)\n\n    def seasoned(self, y):\n        return y * self.taste / self.width\n\n",
    )
    assert b != regression.start_block
    a = _with(regression, "distance_bias")
    children = {child for child in _children(a, b, regression) if "def seasoned" in child and "distance" in child}
    assert children
    for child in sorted(children):
        assert child.count("self.taste = ") == child.count("self.width = ") == 1
        check(regression, child)


def test_attributes_nobody_reads_are_dropped(regression: Framework, check: Callable[..., Any]) -> None:
    """Replacing the method that used a parameter drops the parameter."""
    a = _with(regression, "value_skip", "distance_bias")
    b = _with(regression, "output_scale")
    replaced = [child for child in _children(a, b, regression) if "self.skip_gate * v" not in child]
    assert replaced
    for child in replaced:
        assert "skip_gate" not in child
        check(regression, child)


def test_an_attribute_that_means_something_else_is_not_overwritten(regression: Framework) -> None:
    def with_gain(value: str, where: str, line: str) -> str:
        return regression.start_block.replace(
            "        self.head_dim = head_dim\n", f"        self.head_dim = head_dim\n        self.gain = {value}\n"
        ).replace(where, f"        {line}\n{where}")

    a = with_gain("2.0", "        return q, k, v\n", "q = q * self.gain")
    b = with_gain("3.0", "        return y\n", "y = y * self.gain")
    for child in _children(a, b, regression):
        assert "self.gain = 3.0" not in child or "q = q * self.gain" not in child


@pytest.mark.parametrize("other", ["", "no code", "class Other:\n    pass\n"])
def test_nothing_to_bring_is_none(regression: Framework, other: str) -> None:
    start = regression.start_block
    assert recombine(start, start, regression.name, random.Random(0)) is None
    assert recombine(start, other, regression.name, random.Random(0)) is None
    assert recombine(other, start, regression.name, random.Random(0)) is None
    assert recombine(start, _with(regression, "rope"), "no_such_framework", random.Random(0)) is None


def test_the_same_generator_gives_the_same_child(owner: Framework, chain: Callable[..., Any]) -> None:
    a, _ = chain(owner, random.Random(1), 2)
    b, _ = chain(owner, random.Random(2), 3)
    assert recombine(a, b, owner.name, random.Random(7)) == recombine(a, b, owner.name, random.Random(7))

"""Operators on top of operators: random chains keep the contract and can be taken apart again."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from evolution.proposers.operators.block_editor import BlockEditor
from evolution.proposers.operators.marked_edits import extract_edit
from evolution.proposers.operators.simplification import present_operators, without_operator
from evolution.proposers.operators.slots import SLOTS
from frameworks.program import block_identity
from frameworks.registry import Framework, framework

NAMES = tuple(SLOTS)


def _chains(first: int, count: int, check: Callable[..., Any], chain: Callable[..., Any]) -> None:
    for index in range(first, first + count):
        owner = framework(NAMES[index % 3])
        rng = random.Random(index)
        block, names = chain(owner, rng, rng.randint(1, 5))
        assert sorted(present_operators(block, owner.name)) == sorted(names)
        check(owner, block)


@pytest.mark.parametrize("part", range(10))
def test_random_chains(part: int, check: Callable[..., Any], chain: Callable[..., Any]) -> None:
    _chains(20 * part, 20, check, chain)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_many_random_chains(part: int, check: Callable[..., Any], chain: Callable[..., Any]) -> None:
    _chains(1000 + 100 * part, 100, check, chain)


def _take_apart(owner: Framework, seed: int, chain: Callable[..., Any]) -> None:
    rng = random.Random(seed)
    block, names = chain(owner, rng, 4)
    rng.shuffle(names)
    for name in names:
        edit = extract_edit(BlockEditor(block, SLOTS[owner.name]), name)
        simpler = without_operator(block, owner.name, name)
        assert simpler is not None, name
        again = BlockEditor(simpler, SLOTS[owner.name])
        again.apply(name, edit)
        assert sorted(present_operators(again.code, owner.name)) == sorted(present_operators(block, owner.name))
        block = simpler
    version = owner.contract_version
    assert block_identity(owner.name, version, block) == block_identity(owner.name, version, owner.start_block)


@pytest.mark.parametrize("seed", range(2))
def test_a_chain_taken_apart_in_any_order_is_the_start_again(
    owner: Framework, seed: int, chain: Callable[..., Any]
) -> None:
    _take_apart(owner, seed, chain)


@pytest.mark.slow
def test_many_chains_taken_apart(owner: Framework, chain: Callable[..., Any]) -> None:
    for seed in range(100, 160):
        _take_apart(owner, seed, chain)


def test_editing_nothing_keeps_every_byte(owner: Framework, chain: Callable[..., Any]) -> None:
    for seed in range(5):
        block, _ = chain(owner, random.Random(seed), 3)
        assert BlockEditor(block, SLOTS[owner.name]).code == block

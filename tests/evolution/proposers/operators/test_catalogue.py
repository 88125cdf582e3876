"""The catalogue as a whole."""

from __future__ import annotations

import random
import re
import subprocess
import sys

import pytest

from evolution.proposers.operators.catalogue import catalogue, clash, operator, operators_for
from evolution.proposers.operators.simplification import present_operators
from evolution.proposers.operators.slots import SLOTS
from evolution.proposers.recombination import recombine
from frameworks.registry import framework


def test_there_are_at_least_two_dozen_for_each_framework() -> None:
    assert all(len(operators_for(name)) >= 24 for name in SLOTS)


def test_every_operator_is_named_cited_and_summarised() -> None:
    for name, entry in catalogue().items():
        assert entry.name == name
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert re.search(r"\b(19|20)\d\d\b", entry.paper), name
        assert 10 < len(entry.summary) < 120
        assert set(entry.frameworks) <= set(SLOTS)


def test_exclusions_hold_both_ways() -> None:
    for name, entry in catalogue().items():
        assert all(name in catalogue()[other].excludes for other in entry.excludes)
    owner = framework("matrix_mixer")
    block = catalogue()["stick_breaking"].apply(owner.start_block, owner.name, random.Random(0))
    assert catalogue()["linear_attention"].apply(block or "", owner.name, random.Random(0)) is None
    other = catalogue()["linear_attention"].apply(owner.start_block, owner.name, random.Random(0))
    for seed in range(8):
        child = recombine(block or "", other or "", owner.name, random.Random(seed))
        assert not clash(present_operators(child or "", owner.name))
    assert clash(["rope", "stick_breaking", "linear_attention", "unknown"])


def test_an_unknown_name_gets_the_near_matches() -> None:
    assert operator("rope").name == "rope"
    with pytest.raises(ValueError, match=r"unknown operator 'ropes'; did you mean 'rope'"):
        operator("ropes")


def test_reading_the_catalogue_imports_neither_torch_nor_libcst() -> None:
    code = (
        "import sys; from evolution.proposers.operators.catalogue import catalogue; catalogue(); "
        "print([m for m in ('torch', 'libcst', 'openevolve', 'openai') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

"""Decisions of a block: what is noted, what is forced, and what the search for an ordinary case concludes."""

from __future__ import annotations

import pytest
import torch

from evolution.guards import branches, sweeps
from evolution.guards.branches import named_lengths
from evolution.guards.decisions import instrumented_module
from evolution.guards.subject import ProbedSize, Subject
from frameworks.registry import framework
from tests.evolution.guards.block_template import mixer_block

MIXER = framework("matrix_mixer")
SIZE = ProbedSize(d_model=16, n_heads=2, n_layers=1, vocab_size=32, seq_len=16, batch_size=2)


def subject(forward: str, init: str = "pass", seed: int = 1) -> Subject:
    return Subject("matrix_mixer", MIXER.program(mixer_block(forward, init)).source, [SIZE], seed)


def test_a_rewritten_block_computes_the_same() -> None:
    whole = subject("y = self.attend(q, k, v)\nreturn y * 2 if q.shape[2] > 5 and not self.training else y")
    module, decisions = instrumented_module(whole.source, "rewritten")
    twin = whole.with_module(module)
    for length in (3, 9):
        for train in (True, False):
            x = torch.randn(2, length, 16, generator=torch.Generator().manual_seed(0))
            first, second = (row.layer(SIZE).train(train)(x) for row in (whole, twin))
            assert torch.equal(first, second)
    assert any(seen == {True, False} for seen in decisions.seen.values())
    assert all(0 < line <= 20 for line in decisions.lines.values())


def test_a_forced_decision_goes_the_other_way_and_back_again() -> None:
    module, decisions = instrumented_module(
        subject("return self.attend(q, k, v) + (7.0 if q.shape[2] > 99 else 0.0)").source, "forced"
    )
    layer = subject("return v").with_module(module).layer(SIZE)
    x = torch.zeros(1, 4, 16)
    plain = layer(x)
    (number,) = [number for number, seen in decisions.seen.items() if seen == {False} and decisions.lines[number] == 16]
    with decisions.forced(number, True):
        assert not torch.equal(layer(x), plain)
    assert torch.equal(layer(x), plain)


def test_a_loop_is_forced_once_and_ends() -> None:
    module, decisions = instrumented_module(
        subject("n = 0\nwhile n > 5:\n    n = n + 1\nreturn self.attend(q, k, v) + n").source, "loop"
    )
    layer = subject("return v").with_module(module).layer(SIZE)
    for number in list(decisions.lines):
        with decisions.forced(number, True):
            layer(torch.zeros(1, 4, 16))


def test_masks_flags_and_comparisons_with_none_are_no_decisions() -> None:
    block = subject(
        "s = q @ k.mT\nif self.flag:\n    s = s.masked_fill(torch.arange(4)[None] > torch.arange(4)[:, None], -1e9)\n"
        "if self.other is None:\n    return torch.softmax(s, -1) @ v\nreturn v",
        "self.flag = True\nself.other = None",
    )
    module, decisions = instrumented_module(block.source, "masks")
    decisions.length = 4
    block.with_module(module).layer(SIZE)(torch.zeros(1, 4, 16))
    assert not decisions.seen


def test_the_search_finds_the_case_and_names_the_line() -> None:
    report = branches.check(subject("y = self.attend(q, k, v)\nreturn y + v.roll(-1, 2) if q.shape[2] == 29 else y"))
    assert not report.passed
    assert report.evidence["length"] == 29
    assert report.evidence["line"] == 17
    assert not report.evidence["forced"]


def test_a_leak_that_no_case_reaches_is_refused_as_well() -> None:
    report = branches.check(subject("y = self.attend(q, k, v)\nreturn y + v.roll(-1, 2) if v.sum() > 1e9 else y"))
    assert not report.passed
    assert report.evidence["forced"]


def test_a_condition_that_is_met_without_a_leak_is_let_be() -> None:
    forward = """
    s = q @ k.mT
    if q.shape[2] > 1:
        s = s.masked_fill(~self.mask(q), float("-inf"))
    return torch.softmax(s, -1) @ v
    """
    assert branches.check(subject(forward)).passed


def test_lengths_are_named_by_the_text() -> None:
    assert named_lengths("a = 2\nb = 100\nc = 5000\nd = True\ne = 7.0") == [100, 101, 99]


@pytest.mark.slow
def test_a_sweep_meets_every_remainder_and_every_third_of_a_magnitude() -> None:
    for seed in range(4):
        odd = subject("return self.attend(q, k, v) + max(0, q.shape[2] % 9 - 7) * v.roll(-1, 2)", seed=seed)
        assert not sweeps.check(odd).passed
        narrow = subject(
            "return self.attend(q, k, v) * (1 + self.g) + F.relu(1 - (self.g - 5).abs()) * v.roll(-1, 2)",
            "self.g = nn.Parameter(torch.zeros(()))",
            seed,
        )
        assert not sweeps.check(narrow).passed
    gate = subject("return self.attend(q, k, v) * (1 + self.g)", "self.g = nn.Parameter(torch.zeros(n_heads, 1, 1))")
    assert sweeps.check(gate).passed


def test_a_leak_cannot_hide_behind_more_decisions_than_are_looked_behind() -> None:
    decoys = "\n".join(f"if q.shape[2] > {9_000 + n}:\n    v = v * {n}.0" for n in range(30))
    leak = "if q.shape[2] == 7919:\n    v = v + v.mean(2, keepdim=True)"
    report = branches.check(subject(f"{decoys}\n{leak}\nreturn self.attend(q, k, v)"))
    assert not report.passed
    assert "31 conditions" in report.reason
    assert branches.check(subject("return self.attend(q, k, v)")).passed

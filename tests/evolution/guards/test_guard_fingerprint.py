"""Copies have one fingerprint whatever they call things; programs that train otherwise have another."""

from __future__ import annotations

import pytest

from evolution.guards import fingerprint
from evolution.guards.subject import ProbedSize, Subject
from frameworks.registry import framework
from tests.evolution.guards.block_template import mixer_block

SIZES = [
    ProbedSize(d_model=16, n_heads=2, n_layers=1, vocab_size=32, seq_len=16, batch_size=2),
    ProbedSize(d_model=24, n_heads=3, n_layers=1, vocab_size=32, seq_len=16, batch_size=2),
]
FORWARD = "return self.attend(q, k, v * torch.sigmoid(self.gain)) + self.line(v)"
INIT = "self.gain = nn.Parameter(torch.zeros(head_dim))\nself.line = nn.Linear(head_dim, head_dim, bias=False)"

RENAMED = [text.replace("self.gain", "self.weight").replace("self.line", "self.extra") for text in (FORWARD, INIT)]


def taken(forward: str, init: str = "pass", seed: int = 1) -> str:
    source = framework("matrix_mixer").program(mixer_block(forward, init)).source
    found = fingerprint.check(Subject("matrix_mixer", source, SIZES, seed)).evidence["fingerprint"]
    assert isinstance(found, str)
    assert len(found) == 64
    return found


@pytest.mark.parametrize(
    ("forward", "init"),
    [
        (RENAMED[0], RENAMED[1]),
        ("y = self.line(v)\nreturn y + self.attend(q, k, torch.sigmoid(self.gain) * v)", INIT),
        (FORWARD, "\n".join(reversed(INIT.split("\n")))),
        (FORWARD.replace("torch.sigmoid(self.gain)", "(1 / (1 + torch.exp(-self.gain)))"), INIT),
        ("unused = 3\nif unused > 2:\n    " + FORWARD + "\nreturn v", INIT),
    ],
    ids=["renamed", "reordered sum", "parameters made in another order", "rewritten sigmoid", "idle code"],
)  # fmt: skip
def test_a_copy_has_the_same(forward: str, init: str) -> None:
    assert taken(forward, init) == taken(FORWARD, INIT, seed=2)


@pytest.mark.parametrize(
    ("forward", "init"),
    [
        (FORWARD.replace("sigmoid", "tanh"), INIT),
        (FORWARD, INIT.replace("torch.zeros", "torch.ones")),
        (FORWARD.replace("self.line(v)", "self.line(v).detach() + 0 * self.line(v)"), INIT),
        (FORWARD.replace("(q, k,", "(q, k.detach(),"), INIT),
        (FORWARD, INIT + "\nnn.init.zeros_(self.line.weight)"),
        ("return self.attend(q, k, v * torch.sigmoid(self.gain.exp() - 1)) + self.line(v)", INIT),
        (FORWARD + " * (2 if self.n_heads == 3 else 1)", INIT),
        (FORWARD + " * (1 if self.training else 2)", INIT),
    ],
    ids=["function", "start", "no gradient", "detached keys", "zero start", "other slope", "one size", "one mode"],
)
def test_what_trains_otherwise_has_another(forward: str, init: str) -> None:
    assert taken(forward, init) != taken(FORWARD, INIT)


def test_what_cannot_be_taken_is_none() -> None:
    source = framework("matrix_mixer").program(mixer_block("raise ValueError('no')")).source
    assert fingerprint.check(Subject("matrix_mixer", source, SIZES, 1)).evidence == {"fingerprint": None}

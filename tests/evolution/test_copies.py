"""A proposal that does what an earlier candidate does is answered as a duplicate, before anything is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evolution.config import load_config
from evolution.ledger import Ledger
from evolution.population import Sample
from evolution.proposers.client import Answer
from evolution.proposers.prompt import ShownProgram
from evolution.proposers.roster import Roster
from evolution.proposing import Accepted, Proposing
from frameworks.program import Program
from frameworks.registry import framework

FOUND = framework("matrix_mixer")
OTHER_TEXT = FOUND.start_block.replace("right = k", "keys = k\n        right = keys")


class Behaviours:
    """Stands for the guards: lets everything through and knows what each program does."""

    def __init__(self, fingerprints: dict[str, str | None]) -> None:
        self.fingerprints = fingerprints

    def reject(self, program: Program) -> str | None:
        return None

    def fingerprint(self, program: Program) -> str | None:
        return self.fingerprints.get(program.identity)


class Replying:
    """Stands for an endpoint and a population."""

    def ask(
        self, system: str, user: str, seed: int, *, grammar: str | None = None, timeout: float | None = None
    ) -> Answer:
        text = f"Another text.\n\n```python\n{OTHER_TEXT}```\n"
        return Answer(text=text, error=None, prompt_tokens=None, completion_tokens=None, seconds=0.0)

    def sample(self, iteration: int, attempt: int, inspirations: int) -> Sample:
        return Sample(parent=FOUND.program().identity, inspirations=(), island=0)


def proposed(tmp_path: Path, other: str | None) -> tuple[Accepted | None, dict[str, Any]]:
    """What becomes of another text whose fingerprint is `other`, the reference's being a row of a."""
    fakes: Any = Replying()
    reference, copy = FOUND.program(), FOUND.program(OTHER_TEXT)
    guards: Any = Behaviours({reference.identity: "a" * 64, copy.identity: other})
    with Ledger.open(tmp_path / "ledger.sqlite", create=True) as ledger:
        proposing = Proposing(
            config=load_config(None, None, {"framework": "matrix_mixer", "proposer.attempts": 1}),
            framework=FOUND,
            ledger=ledger,
            population=fakes,
            guarding=guards,
            roster=Roster.single(fakes, "test"),
            shown=lambda identity: ShownProgram(block=FOUND.start_block),
            noise=lambda: None,
        )
        proposing.know(reference)
        accepted = proposing.next(1)
        return accepted, dict(ledger.proposals()[0].payload)


def test_a_copy_of_the_reference_is_a_duplicate(tmp_path: Path) -> None:
    accepted, proposal = proposed(tmp_path, "a" * 64)
    assert accepted is None
    assert proposal["status"] == "duplicate"
    assert f"the same outputs and gradients on fixed inputs as candidate {FOUND.program().identity[:12]}" in str(
        proposal["reason"]
    )


def test_what_does_something_else_is_accepted(tmp_path: Path) -> None:
    accepted, _ = proposed(tmp_path, "b" * 64)
    assert accepted is not None


def test_an_unknown_behaviour_is_nobodys_copy(tmp_path: Path) -> None:
    accepted, _ = proposed(tmp_path, None)
    assert accepted is not None

"""A candidate in the running search."""

from __future__ import annotations

from dataclasses import dataclass

from evolution.fitness import Cell
from frameworks.program import Program


@dataclass(kw_only=True)
class Candidate:
    """Its program, where it came from, its completed losses, and why it failed if it did."""

    program: Program
    iteration: int
    parent: str | None
    island: int
    changes: str
    losses: dict[Cell, float]
    failure: str | None = None

"""Name to framework: the one registry of what can be evolved.

An unknown name is an error that lists the near matches. The registry holds paths and
names only, so that looking a framework up never imports torch.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from frameworks.program import Program, make_program, split_source

_HERE = Path(__file__).parent


class UnknownFrameworkError(ValueError):
    """No framework of that name; the message lists near matches and all names."""


@dataclass(frozen=True, kw_only=True)
class Framework:
    """What evolves: a pristine source file and the names it must define.

    Attributes:
        name: how users call it.
        kind: family of harness that measures it (`attention`).
        path: the pristine source.
        contract_version: raised when the block's interface changes; part of every identity.
        block_class: class the block must define.
        standard_class: the fixed reference in the file.
        evolvable_class: the shell that instantiates the block.
        summary: one line for `--help` and reports.
    """

    name: str
    kind: str
    path: Path
    contract_version: str
    block_class: str
    standard_class: str
    evolvable_class: str
    summary: str

    @property
    def pristine(self) -> str:
        """The pristine source text."""
        return self.path.read_text(encoding="utf-8")

    @property
    def start_block(self) -> str:
        """The block as shipped: softmax attention in the framework's own terms."""
        return split_source(self.pristine)[1]

    def program(self, block: str | None = None) -> Program:
        """The program with `block` spliced in (the shipped block when None).

        Raises:
            ProgramError: the block is not legal.
        """
        return make_program(
            self.name, self.contract_version, self.pristine, self.start_block if block is None else block
        )

    def program_from_source(self, source: str) -> Program:
        """A program from a whole file: its block is spliced into the pristine shell, the rest is dropped.

        Raises:
            ProgramError: the file has not exactly one legal block.
        """
        return self.program(split_source(source)[1])


@cache
def frameworks() -> dict[str, Framework]:
    """All frameworks by name, in the order they are shown."""
    entries = [
        Framework(
            name="coefficient_dynamics",
            kind="attention",
            path=_HERE / "attention" / "coefficient_dynamics.py",
            contract_version="1",
            block_class="Dynamics",
            standard_class="StandardCoefficientDynamics",
            evolvable_class="EvolvableCoefficientDynamics",
            summary="attention as a linear combination with evolving coefficients (Sieber et al. 2025)",
        ),
        Framework(
            name="test_time_regression",
            kind="attention",
            path=_HERE / "attention" / "test_time_regression.py",
            contract_version="1",
            block_class="Regressor",
            standard_class="StandardTestTimeRegression",
            evolvable_class="EvolvableTestTimeRegression",
            summary="attention as a regression fitted anew at every position (Wang et al. 2025)",
        ),
        Framework(
            name="matrix_mixer",
            kind="attention",
            path=_HERE / "attention" / "matrix_mixer.py",
            contract_version="1",
            block_class="Mixer",
            standard_class="StandardMatrixMixer",
            evolvable_class="EvolvableMatrixMixer",
            summary="attention as a structured matrix along the sequence (Hwang et al. 2024)",
        ),
    ]
    return {entry.name: entry for entry in entries}


def framework(name: str) -> Framework:
    """The framework called `name`.

    Raises:
        UnknownFrameworkError: there is none; the message lists near matches and all names.
    """
    known = frameworks()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(repr(match) for match in near)}?" if near else "."
    raise UnknownFrameworkError(f"unknown framework {name!r}{hint} Known: {', '.join(known)}")

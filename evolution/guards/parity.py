"""A candidate has as many parameters as the reference, so that a gain is never a larger model in disguise."""

from __future__ import annotations

from evolution.guards.report import GuardReport
from evolution.guards.subject import Subject

NAME = "parity"
TOLERANCE = 0.02


def check(subject: Subject) -> GuardReport:
    """Non-embedding parameters of the whole model within 2 % of the reference at every size."""
    rows: list[dict[str, str | int | float]] = []
    for size in subject.sizes:
        found = subject.model(size).n_parameters()
        wanted = subject.model(size, reference=True).n_parameters()
        excess = found / wanted - 1.0
        rows.append({"size": size.name, "parameters": found, "reference": wanted, "excess": excess})
        if abs(found - wanted) > TOLERANCE * wanted:
            room = int(TOLERANCE * wanted / size.n_layers)
            return GuardReport(
                guard=NAME,
                passed=False,
                reason=(
                    f"the model has {found:,} non-embedding parameters at {size.name}, the reference {wanted:,} "
                    f"({100 * excess:+.1f} %); within {100 * TOLERANCE:g} % is allowed, which is "
                    f"{room:,} parameters for the block at this size"
                ),
                evidence={"sizes": rows},
            )
    return GuardReport(guard=NAME, passed=True, reason="parameters match the reference", evidence={"sizes": rows})

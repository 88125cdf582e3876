"""The account of a run that starts or goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evolution.budget import Budget, session_seconds
from evolution.stages import RunFactory
from evolution.training_cost import tokens_set_aside

if TYPE_CHECKING:
    from data.corpus import Corpus
    from evolution.ledger import Ledger
    from evolution.session import Request


def set_aside(request: Request, corpus: Corpus) -> int:
    """Training tokens that the search may not touch.

    Raises:
        ConfigError: the budget leaves none for a candidate.
    """
    factory = RunFactory(request.config, request.ladder, corpus, "fp32", "cpu")
    reference = request.framework.program().identity
    return tokens_set_aside(request.config, factory, reference, request.stages, request.confirmation_sizes)


def open_budget(request: Request, ledger: Ledger, tokens: int) -> Budget:
    """The run's account, with what is set aside and the seconds of the sessions before this one."""
    section = request.config.budget
    earlier = 0.0
    if section.seconds is not None:
        this_start = ledger.events("run_started")[-1].seq
        earlier = session_seconds([(event.kind, event.time) for event in ledger.events() if event.seq < this_start])
    return Budget(section, set_aside=tokens, earlier_seconds=earlier)

"""The account of a run that starts or goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evolution.budget import Budget, session_seconds
from evolution.training_cost import tokens_set_aside

if TYPE_CHECKING:
    from evolution.ledger import Ledger
    from evolution.session import Request
    from evolution.stages import RunFactory


def open_budget(request: Request, ledger: Ledger, factory: RunFactory) -> Budget:
    """The run's account, with what is set aside and the seconds of earlier sessions.

    Raises:
        ConfigError: too few training tokens for a single candidate.
    """
    config = request.config
    reference = request.framework.program().identity
    earlier = 0.0
    if config.budget.seconds is not None:
        this_start = ledger.events("run_started")[-1].seq
        earlier = session_seconds([(event.kind, event.time) for event in ledger.events() if event.seq < this_start])
    return Budget(
        config.budget,
        set_aside=tokens_set_aside(config, factory, reference, request.stages, request.confirmation_sizes),
        earlier_seconds=earlier,
    )

"""Training tokens of what a run is going to do, before it does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evolution.config import ConfigError, EvolveConfig

if TYPE_CHECKING:
    from evolution.stages import RunFactory, Stage


def candidate_tokens(factory: RunFactory, reference: str, stages: tuple[Stage, ...]) -> int:
    """Tokens that one candidate takes at these stages."""
    return sum(factory.search(reference, stage, index).tokens for stage in stages for index in range(stage.seeds))


def tokens_set_aside(
    config: EvolveConfig,
    factory: RunFactory,
    reference: str,
    stages: tuple[Stage, ...],
    confirmation_sizes: tuple[str, ...],
) -> int:
    """Most tokens of everything but the search's candidates: the reference, later stages, the confirmation.

    Raises:
        ConfigError: the budget of training tokens leaves nothing for a candidate.
    """
    in_loop = tuple(stage for stage in stages if stage.in_loop)
    later = sum(
        ((stage.keep or config.iterations) + 1) * candidate_tokens(factory, reference, (stage,))
        for stage in stages
        if not stage.in_loop
    )
    seeds = factory.confirmation_seeds()
    confirmed = sum(factory.confirmation(reference, size, seed).tokens for size in confirmation_sizes for seed in seeds)
    a_candidate = candidate_tokens(factory, reference, in_loop)
    total = a_candidate + later + (config.confirmation.shortlist + 1) * confirmed
    if config.controls.names:
        arms = len(config.controls.names)
        fresh = sum(
            config.controls.seeds * factory.search(reference, stage, 0).tokens for stage in stages if stage.in_loop
        )
        # Every arm's search, the tuning arm's own reference, and the best of each arm and the reference on fresh seeds.
        total += arms * (config.iterations * a_candidate + later) + a_candidate + (arms + 2) * fresh
    limit = config.budget.training_tokens
    if limit is not None and total + a_candidate > limit:
        raise ConfigError(
            f"budget.training_tokens is {limit:,}; the reference, the later stages and the confirmation take up to "
            f"{total:,} and a candidate {a_candidate:,}, so it must be at least {total + a_candidate:,}"
        )
    return total

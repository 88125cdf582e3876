"""One ingredient of the prompt is left out of a share of the proposals, so that a run measures what each is worth."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from data.keyed_random import seed_of
from evolution.proposer_config import GuidanceSection
from evolution.proposers.prompt import Failure, ShownProgram


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """What a prompt shows beside the task.

    Attributes:
        parent: the program to start from.
        others: other good or different programs; None: withheld.
        failures: recent failures, latest first; None: withheld.
        noise: SD of the paired difference of equal programs, nats; None when not known.
    """

    parent: ShownProgram
    others: list[ShownProgram] | None
    failures: list[Failure] | None
    noise: float | None

    def without(self, ingredient: str | None) -> Guidance:
        """The same, less one ingredient; None leaves all in.

        Raises:
            ValueError: there is no such ingredient.
        """
        if ingredient is None:
            return self
        if ingredient == "failures":
            return replace(self, failures=None)
        if ingredient == "inspirations":
            return replace(self, others=None)
        if ingredient == "curves":
            bare = [replace(other, losses=None) for other in self.others or ()]
            return replace(self, parent=replace(self.parent, losses=None), others=bare)
        raise ValueError(f"ingredient is {ingredient!r}; one of failures, inspirations, curves")


def draw_withheld(section: GuidanceSection, seed: int, iteration: int, attempt: int) -> str | None:
    """The ingredient that this proposal does without; None for most."""
    rng = random.Random(seed_of("withhold", seed, iteration, attempt))
    return rng.choice(section.ingredients) if rng.random() < section.withhold else None

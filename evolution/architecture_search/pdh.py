"""Progressive dynamic hurdles (So et al. 2019): depth for whoever stays better than the population's mean.

Everyone trains stage 0. Then a hurdle is set, the mean loss of those trained for the most steps; whoever lies below
it earns the next stage, after which the next hurdle is set, and so on. Hurdles come from the population's history
only and never move once set. Here a lower loss is the better fitness.
"""

from __future__ import annotations

import math
from collections.abc import Hashable


class Pdh:
    """The scheduler.

    Args:
        stages: further steps of each stage.

    Raises:
        ValueError: no stages, or one without steps.
    """

    def __init__(self, stages: tuple[int, ...]) -> None:
        if not stages or min(stages) < 1:
            raise ValueError(f"stages={stages}: needs at least one, each of at least 1 step")
        self.stages = stages
        self.hurdles: list[float] = []
        """One for each stage that is open beyond the first: the loss to be below."""
        self.losses: dict[Hashable, list[float]] = {}
        """Member to its loss after each stage it trained; infinite for a failure."""

    def next_stage(self, member: Hashable) -> int | None:
        """The stage that `member` has earned and not trained yet."""
        done = self.losses.get(member, [])
        if not done:
            return 0
        stage = len(done)
        if stage >= len(self.stages) or stage > len(self.hurdles):
            return None
        return stage if done[-1] < self.hurdles[stage - 1] else None

    def steps_after(self, stage: int) -> int:
        """Steps a member has trained in all once `stage` is done."""
        return sum(self.stages[: stage + 1])

    def tell(self, member: Hashable, loss: float | None) -> None:
        """The loss of `member` after its next stage; None is a failure.

        Raises:
            ValueError: it has not earned a stage.
        """
        if self.next_stage(member) is None:
            raise ValueError(f"member {member!r} has earned no further stage")
        value = math.inf if loss is None or not math.isfinite(loss) else float(loss)
        self.losses.setdefault(member, []).append(value)

    def set_hurdle(self) -> float | None:
        """Set the next hurdle from the history so far; None where all are set or nobody has trained that far."""
        stage = len(self.hurdles)
        if stage >= len(self.stages) - 1:
            return None
        reached = [losses[stage] for losses in self.losses.values() if len(losses) > stage]
        finite = [loss for loss in reached if math.isfinite(loss)]
        if not finite:
            return None
        self.hurdles.append(math.fsum(finite) / len(finite))
        return self.hurdles[-1]

    def steps_spent(self) -> int:
        """Steps of all members together."""
        return sum(self.steps_after(len(losses) - 1) for losses in self.losses.values())

    def ranking(self) -> list[Hashable]:
        """Members, best first: who trained more stages before who trained fewer, then by the last loss."""
        finite = [m for m, losses in self.losses.items() if math.isfinite(losses[-1])]
        return sorted(finite, key=lambda m: (-len(self.losses[m]), self.losses[m][-1], str(m)))

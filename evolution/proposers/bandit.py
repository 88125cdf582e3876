"""Which proposer is asked next: UCB1 (Auer, Cesa-Bianchi, Fischer 2002) on the gain of its candidates.

Rewards are paired gains in standard deviations of a single pair, clipped, so that the
bound's width is in the same unit whatever the loss. Deterministic: no draw but the order
in which proposers are first tried. A proposer counts as asked when it is chosen, not when
its candidate has been measured, so that several in flight are not all the same one.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from data.keyed_random import seed_of

CLIP = 3.0
"""Rewards stay within this many standard deviations; a proposal without a candidate gets the lower end."""


@dataclass
class _Record:
    asked: int = 0
    rewards: list[float] = field(default_factory=list)
    cost: float = 0.0


class Bandit:
    """Chooses among proposers.

    Args:
        n_arms: how many.
        seed: order of the first tries.
        exploration: factor on the width of the upper confidence bound.
        per_cost: rewards are gains above zero over what they cost; else gains.
    """

    def __init__(self, n_arms: int, *, seed: int, exploration: float = 1.0, per_cost: bool = False) -> None:
        if n_arms < 1:
            raise ValueError(f"n_arms is {n_arms}; there must be at least one proposer")
        self._records = [_Record() for _ in range(n_arms)]
        self._exploration = exploration
        self._per_cost = per_cost
        self._order = list(range(n_arms))
        random.Random(seed_of("bandit", seed)).shuffle(self._order)

    def choose(self, closed: frozenset[int] = frozenset()) -> int:
        """The proposer to ask now, none of `closed`; it counts as asked.

        Raises:
            ValueError: all are closed.
        """
        open_ = [arm for arm in self._order if arm not in closed]
        if not open_:
            raise ValueError("no proposer is left to choose from")
        new = [arm for arm in open_ if self._records[arm].asked == 0]
        chosen = new[0] if new else max(open_, key=self._bound)
        self._records[chosen].asked += 1
        return chosen

    def credit(self, arm: int, gain: float | None, cost: float = 1.0) -> None:
        """What an earlier choice came to.

        Args:
            gain: in standard deviations of a pair; None when there was no candidate or it failed.
            cost: seconds or dollars; read only where rewards are per cost.
        """
        value = -CLIP if gain is None else max(-CLIP, min(CLIP, gain))
        self._records[arm].rewards.append(max(value, 0.0) if self._per_cost else value)
        self._records[arm].cost += cost

    def mean(self, arm: int) -> float:
        """Mean reward of a proposer, per unit of cost where that is asked for; 0 before the first."""
        record = self._records[arm]
        if not record.rewards:
            return 0.0
        if not self._per_cost:
            return math.fsum(record.rewards) / len(record.rewards)
        # In units of the mean cost of all proposers, so that the bound keeps its unit.
        rewards = sum(len(other.rewards) for other in self._records)
        typical = math.fsum(other.cost for other in self._records) / rewards
        return math.fsum(record.rewards) * typical / record.cost if record.cost > 0 else math.inf

    def best(self) -> int:
        """The proposer asked most often, the better mean first among equals."""
        return max(self._order, key=lambda arm: (self._records[arm].asked, self.mean(arm)))

    def _bound(self, arm: int) -> float:
        total = sum(record.asked for record in self._records)
        return self.mean(arm) + self._exploration * math.sqrt(2.0 * math.log(total) / self._records[arm].asked)

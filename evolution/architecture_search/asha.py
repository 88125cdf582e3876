"""ASHA, the promotion variant (Li et al. 2018): breadth first, and only the best of each rung go on.

Rung k trains up to min_steps * eta^k steps. A free worker scans the rungs from the top and promotes an unpromoted
member of the top floor(|rung| / eta); where there is none it starts the next configuration. A failed run ranks last
and is never promoted. Nothing is random here and nothing is remembered beside what was told, so a restart that tells
the same results in the same order stands at the same place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AshaJob:
    """Train `member` up to `steps`, the budget of `rung`."""

    member: int
    rung: int
    steps: int


class Asha:
    """The scheduler.

    Args:
        members: how many configurations there are, started in order.
        min_steps: budget of rung 0.
        max_steps: budget that no rung exceeds; the top rung has the largest min_steps * eta^k within it.
        eta: one in eta is promoted.

    Raises:
        ValueError: a number outside its range.
    """

    def __init__(self, *, members: int, min_steps: int, max_steps: int, eta: int) -> None:
        if members < 1 or min_steps < 1 or eta < 2 or max_steps < min_steps:
            raise ValueError(
                f"members={members}, min_steps={min_steps}, max_steps={max_steps}, eta={eta}: needs members >= 1, "
                "1 <= min_steps <= max_steps and eta >= 2"
            )
        self.members, self.eta = members, eta
        self.budgets = [min_steps]
        while self.budgets[-1] * eta <= max_steps:
            self.budgets.append(self.budgets[-1] * eta)
        self.results: list[dict[int, float]] = [{} for _ in self.budgets]
        self._promoted: list[set[int]] = [set() for _ in self.budgets]
        self._started = 0

    def ask(self) -> AshaJob | None:
        """The next job for a free worker; None where nothing can be done before another result comes."""
        for rung in range(len(self.budgets) - 2, -1, -1):
            for member in self._top(rung):
                if member not in self._promoted[rung]:
                    self._promoted[rung].add(member)
                    return AshaJob(member=member, rung=rung + 1, steps=self.budgets[rung + 1])
        if self._started < self.members:
            self._started += 1
            return AshaJob(member=self._started - 1, rung=0, steps=self.budgets[0])
        return None

    def tell(self, job: AshaJob, loss: float | None) -> None:
        """What a job came to; None is a failure.

        Raises:
            ValueError: the result of this member at this rung is known already.
        """
        if job.member in self.results[job.rung]:
            raise ValueError(f"member {job.member} already has a result at rung {job.rung}")
        finite = loss is not None and math.isfinite(loss)
        self.results[job.rung][job.member] = float(loss) if finite and loss is not None else math.inf

    def ranking(self) -> list[int]:
        """Members with a result, best first: who reached a higher rung before who did not, then by loss."""
        order: dict[int, tuple[int, float, int]] = {}
        for rung, results in enumerate(self.results):
            for member, loss in results.items():
                if math.isfinite(loss) or member not in order:
                    order[member] = (-rung if math.isfinite(loss) else 1, loss, member)
        return sorted(order, key=lambda member: order[member])

    def _top(self, rung: int) -> list[int]:
        results = self.results[rung]
        ranked = sorted(results, key=lambda member: (results[member], member))
        return [member for member in ranked[: len(ranked) // self.eta] if math.isfinite(results[member])]

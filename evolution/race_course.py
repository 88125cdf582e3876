"""A race inside an evolution: the first stages' runs one by one, and the tokens they cost.

Seeds are raced one after the other, each at every size, small to large. Runs go to their full
horizon: no early rung of a run has been found here whose ranking can be trusted. Everything is
decided on candidates in the order of their admission, so that neither the number of workers nor their
timing changes who is stopped, and a resumed run stops the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from evolution.config import ConfigError, RacingSection
from evolution.fitness import Cell
from evolution.racing import Race, Rung, Stop
from evolution.stages import RunFactory, Stage

if TYPE_CHECKING:
    from training.ladder import Ladder
    from training.run_spec import RunSpec


def check_budget(section: RacingSection | None, stages: Sequence[Stage], ladder: Ladder) -> None:
    """Refuse a token budget that does not pay for the reference and one run of one candidate.

    Raises:
        ConfigError: it does not; the message names the least that would.
    """
    if section is None or section.budget_tokens is None:
        return
    costs = []
    for stage in stages:
        if stage.in_loop:
            size = ladder.size(stage.size)
            costs.append((stage.steps or size.steps) * size.batch_size * size.seq_len)
    least = sum(cost * stage.seeds for cost, stage in zip(costs, stages, strict=False)) + costs[0]
    if section.budget_tokens < least:
        raise ConfigError(
            f"racing.budget_tokens is {section.budget_tokens:,}; the reference's runs of the first stages and one "
            f"run of one candidate already take {least:,} training tokens"
        )


class Course:
    """The rungs of an evolution's first stages and its token budget.

    Args:
        section: the rules.
        stages: the stages every candidate enters.
        factory: makes the runs.
        reference: identity of the reference, for the cost of a run.
    """

    def __init__(self, section: RacingSection, stages: Sequence[Stage], factory: RunFactory, reference: str) -> None:
        most = max(stage.seeds for stage in stages)
        self._places = [(stage, index) for index in range(most) for stage in stages if index < stage.seeds]
        self._factory = factory
        self._budget = section.budget_tokens
        self._spent = 0
        specs = [factory.search(reference, stage, index) for stage, index in self._places]
        self._race = Race(
            section,
            [
                Rung(size=spec.size, seed=index, step=spec.steps, tokens=spec.tokens)
                for spec, (_, index) in zip(specs, self._places, strict=True)
            ],
        )

    @property
    def spent(self) -> int:
        """Training tokens of all runs charged so far."""
        return self._spent

    def affords(self, tokens: int) -> bool:
        """Whether the budget allows runs of so many tokens."""
        return self._budget is None or self._spent + tokens <= self._budget

    def charge(self, tokens: int) -> None:
        """Count the tokens of a run, measured or on record, so that a resumed run agrees."""
        self._spent += tokens

    def affords_rung(self, rung: int) -> bool:
        """Whether the budget allows one candidate's run at a rung (0-based)."""
        return self.affords(self._race.rungs[rung].tokens)

    def spec(self, candidate: str, rung: int) -> RunSpec:
        """A candidate's run at a rung."""
        stage, index = self._places[rung]
        return self._factory.search(candidate, stage, index)

    def follow(
        self,
        candidate: str,
        losses: Mapping[Cell, float],
        reference: Mapping[Cell, float],
        advance: Callable[[int], bool],
    ) -> Stop | None:
        """Take a candidate whose first rung is measured as far as it may go.

        Args:
            candidate: its identity.
            losses, reference: completed losses by (size, seed); `losses` grows as runs are made.
            advance: measures the candidate at a rung (0-based); False where the run failed.

        Returns:
            Why it was stopped before its last rung; None when it went all the way, or failed.
        """
        for rung in range(len(self._places)):
            if rung:
                if not self.affords_rung(rung):
                    return Stop(rule="budget", reason=f"the budget of {self._budget:,} training tokens is spent")
                if not advance(rung):
                    return None
            spec = self.spec(candidate, rung)
            cell = (spec.size, spec.seed)
            if cell not in losses:
                return None
            self._race.note(candidate, losses[cell] - reference[cell])
            stop = self._race.judge(candidate)
            if stop is not None:
                return stop
        return None

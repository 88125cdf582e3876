"""Control arms: what the same training budget brings without guidance, so that guidance can be judged.

- `best_of_n`: the same proposers, always from the start program: no selection, no memory of what helped.
- `random_operators`: the operator catalogue on a parent drawn at random from the arm's own candidates.
- `tuning`: the start program at other learning rates.

Each measures as many candidates as the search's training tokens pay for. Its best by search
fitness, and the search's own best, then run on fresh paired seeds, where choosing the best of
many no longer flatters; `analysis.arm_gains` says in words what came of it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.keyed_random import seed_of
from evolution.budget import Budget, BudgetSpent
from evolution.candidate import Candidate
from evolution.config import EvolveConfig
from evolution.fitness import Cell, paired_gain
from evolution.population import Sample
from evolution.proposers.prompt import ShownProgram
from evolution.proposers.roster import CATALOGUE_DESCRIPTION, Roster, endpoint_config
from evolution.proposing import Proposing
from evolution.training_cost import candidate_tokens

if TYPE_CHECKING:
    from evolution.engine import Evolution, Listener
    from evolution.ledger import Ledger
    from evolution.session import Bench, Request
    from evolution.stages import Stage
    from frameworks.program import Program
    from frameworks.registry import Framework
    from training.outcome import Outcome

EVOLVED = "evolved"
LEARNING_RATE_RANGE = 4.0
"""Tuning draws a factor on the ladder's learning rate from 1/4 to 4, evenly on a logarithmic scale."""
FRESH = 50
"""Index of the first fresh seed in the run's hundred; the tuning arm searches below it."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """The best of an arm: what it is, at which factor on the learning rate, and its gain in its own search."""

    program: Program
    factor: float
    search_gain: float
    changes: str


class _Parents:
    """Draws parents without looking at what they came to: the start program, or any of the arm's own candidates."""

    def __init__(self, start: str, seed: int, *, only_start: bool) -> None:
        self.known = [start]
        self._seed = seed
        self._only_start = only_start

    def sample(self, iteration: int, attempt: int, inspirations: int) -> Sample:
        rng = random.Random(seed_of("control parents", self._seed, iteration, attempt))
        parent = self.known[0] if self._only_start else rng.choice(self.known)
        return Sample(parent=parent, inspirations=(), island=0)


class ControlArms:
    """The control arms of one finished search.

    Args:
        config: the run's configuration.
        framework: what evolves.
        bench: the open parts that measure.
        stages: the search's stages; the arms use those that measure every candidate.
        roster: the run's proposers.
        budget: the run's account; a control arm that finds it empty stops early.
        reference: the start program, with its losses in the search.
        evolved: the search's best; None when it found nothing.
        n_candidates: candidates that the search measured.
        source: ledger of the run that is replayed, or None.
        listener: called with (event, payload).
    """

    def __init__(
        self,
        *,
        config: EvolveConfig,
        framework: Framework,
        bench: Bench,
        stages: Sequence[Stage],
        roster: Roster,
        budget: Budget,
        reference: Candidate,
        evolved: Candidate | None,
        n_candidates: int,
        source: Ledger | None,
        listener: Listener,
    ) -> None:
        self._config = config
        self._framework = framework
        self._bench = bench
        self._stages = tuple(stage for stage in stages if stage.in_loop)
        self._roster = roster
        self._budget = budget
        self._reference = reference
        self._evolved = evolved
        self._source = source
        self._listen = listener
        identity = reference.program.identity
        a_candidate = candidate_tokens(bench.factory, identity, self._stages)
        later = sum(
            min(stage.keep or n_candidates, n_candidates) * candidate_tokens(bench.factory, identity, (stage,))
            for stage in stages
            if not stage.in_loop
        )
        self.n_candidates = n_candidates + later // a_candidate

    def run(self) -> None:
        """Run every arm that is switched on, compare them, and record both (kind `note`)."""
        contenders: dict[str, Contender] = {}
        if self._evolved is not None:
            gain = paired_gain(self._reference.losses, self._evolved.losses)
            contenders[EVOLVED] = Contender(
                program=self._evolved.program, factor=1.0, search_gain=gain, changes=self._evolved.changes
            )
        for name in self._config.controls.names:
            self._listen("control_arm", {"arm": name, "candidates": self.n_candidates})
            found, measured = self._tuning() if name == "tuning" else self._programs(name)
            if found is not None:
                contenders[name] = found
            self._record(name, found, measured)
        gains = {name: self._fresh_gains(contender) for name, contender in contenders.items()}
        self._bench.ledger.record_once(
            "note", {"what": "arm_gains", "gains": gains, "stages": [s.size for s in self._stages]}, key="arm_gains"
        )

    def _record(self, name: str, found: Contender | None, measured: int) -> None:
        payload = {
            "what": "control_arm",
            "arm": name,
            "measured": measured,
            "best": None if found is None else found.program.identity,
            "factor": None if found is None else found.factor,
            "search_gain": None if found is None else found.search_gain,
            "changes": None if found is None else found.changes,
        }
        self._bench.ledger.record_once("note", payload, key=f"control:{name}")

    # Arms of programs

    def _programs(self, name: str) -> tuple[Contender | None, int]:
        """The best candidate of an arm, and how many were measured."""
        programs = {self._reference.program.identity: self._reference.program}
        changes: dict[str, str] = {}
        parents = _Parents(self._reference.program.identity, self._config.seed, only_start=name == "best_of_n")
        best: Contender | None = None
        measured = 0
        waiting: deque[tuple[str, list[tuple[Cell, Future[Outcome]]]]] = deque()
        with ExitStack() as stack:
            proposing = self._proposing(name, self._roster_of(name, stack), parents, programs)
            for iteration in range(1, self.n_candidates + 1):
                try:
                    accepted = proposing.next(iteration)
                except BudgetSpent as spent:
                    self._listen("budget", {"reason": f"control arm {name} ended early: {spent}"})
                    break
                if accepted is not None:
                    identity = accepted.program.identity
                    programs[identity], changes[identity] = accepted.program, accepted.changes
                    parents.known.append(identity)
                    waiting.append((identity, self._submit(accepted.program)))
                while len(waiting) >= self._config.in_flight:
                    identity, futures = waiting.popleft()
                    best = self._better(best, programs[identity], changes[identity], futures, proposing)
                    measured += 1
            while waiting:
                identity, futures = waiting.popleft()
                best = self._better(best, programs[identity], changes[identity], futures, proposing)
                measured += 1
        return best, measured

    def _better(
        self,
        best: Contender | None,
        program: Program,
        changes: str,
        futures: list[tuple[Cell, Future[Outcome]]],
        proposing: Proposing,
    ) -> Contender | None:
        losses = _losses(futures)
        gain = None if losses is None else paired_gain(self._reference.losses, losses)
        proposing.credit(program.identity, gain)
        if gain is None or (best is not None and best.search_gain >= gain):
            return best
        return Contender(program=program, factor=1.0, search_gain=gain, changes=changes)

    def _submit(self, program: Program) -> list[tuple[Cell, Future[Outcome]]]:
        factory, measurement = self._bench.factory, self._bench.measurement
        specs = [
            factory.search(program.identity, stage, index) for stage in self._stages for index in range(stage.seeds)
        ]
        return [((spec.size, spec.seed), measurement.submit(spec, program.source)) for spec in specs]

    def _roster_of(self, name: str, stack: ExitStack) -> Roster:
        """Who proposes in an arm; the bandit starts anew."""
        if name == "best_of_n":
            sections = self._config.proposers or [self._config.proposer]
            weights = [section.weight for section in sections]
            return Roster(self._roster.arms, choice=self._roster.choice, weights=weights, seed=self._config.seed)
        if self._source is not None:
            return Roster.single(None, CATALOGUE_DESCRIPTION, uses_llm=False)
        from evolution.proposer_config import ArmSection
        from evolution.proposers.catalogue_server import MODEL, CatalogueServer
        from evolution.proposers.client import EndpointClient

        server = stack.enter_context(CatalogueServer(self._framework.name, self._config.seed))
        client = EndpointClient(endpoint_config(ArmSection(), server.base_url, MODEL))
        return Roster.single(client, CATALOGUE_DESCRIPTION, uses_llm=False)

    def _proposing(self, name: str, roster: Roster, parents: _Parents, programs: Mapping[str, Program]) -> Proposing:
        def shown(identity: str) -> ShownProgram:
            return ShownProgram(block=programs[identity].block, losses=None)

        proposing = Proposing(
            config=self._config,
            framework=self._framework,
            ledger=self._bench.ledger,
            population=parents,
            guarding=self._bench.guarding,
            roster=roster,
            shown=shown,
            noise=lambda: None,
            budget=self._budget if name == "best_of_n" else None,
            source=self._source,
            prefix=name,
        )
        proposing.know(self._reference.program)
        return proposing

    # The arm of learning rates, and fresh seeds

    def _tuning(self) -> tuple[Contender | None, int]:
        program = self._reference.program
        rng = random.Random(seed_of("control tuning", self._config.seed))
        factors = [LEARNING_RATE_RANGE ** rng.uniform(-1.0, 1.0) for _ in range(self.n_candidates)]
        submitted = {
            factor: [pair for stage in self._stages for pair in self._at(program, stage, range(stage.seeds), factor)]
            for factor in (1.0, *factors)
        }
        losses = {factor: _losses(futures) for factor, futures in submitted.items()}
        base = losses.pop(1.0)
        if base is None:
            return None, 0
        gains = {factor: paired_gain(base, found) for factor, found in losses.items() if found is not None}
        if not gains:
            return None, len(factors)
        best = max(gains, key=lambda factor: gains[factor])
        changes = f"learning rate times {best:.2f}"
        return Contender(program=program, factor=best, search_gain=gains[best], changes=changes), len(factors)

    def _fresh_gains(self, contender: Contender) -> list[float | None]:
        """Gain over the start program on each fresh seed, mean over sizes, nats; None where a run failed."""
        seeds = range(FRESH, FRESH + self._config.controls.seeds)
        arms = [(contender.program, contender.factor), (self._reference.program, 1.0)]
        ours, theirs = (
            [pair for stage in self._stages for pair in self._at(program, stage, seeds, factor)]
            for program, factor in arms
        )
        found = [{cell: future.result() for cell, future in side} for side in (ours, theirs)]
        gains: list[float | None] = []
        for seed in dict.fromkeys(seed for _, seed in found[0]):
            pairs = [(found[0][cell], found[1][cell]) for cell in found[0] if cell[1] == seed]
            differences = [
                before.val_loss - after.val_loss
                for after, before in pairs
                if after.status == "completed" and before.status == "completed"
            ]
            gains.append(sum(differences) / len(differences) if len(differences) == len(pairs) else None)
        return gains

    def _at(self, program: Program, stage: Stage, seeds: range, factor: float) -> list[tuple[Cell, Future[Outcome]]]:
        specs = [self._bench.factory.assessment(program.identity, stage, index, factor) for index in seeds]
        return [((spec.size, spec.seed), self._bench.measurement.submit(spec, program.source)) for spec in specs]


def _losses(futures: list[tuple[Cell, Future[Outcome]]]) -> dict[Cell, float] | None:
    """Losses by cell; None when a run failed."""
    outcomes = [(cell, future.result()) for cell, future in futures]
    losses = {cell: outcome.val_loss for cell, outcome in outcomes if outcome.status == "completed"}
    return losses if len(losses) == len(outcomes) else None


def run_controls(
    evolution: Evolution,
    request: Request,
    bench: Bench,
    roster: Roster,
    budget: Budget,
    source: Ledger | None,
    listener: Listener,
) -> None:
    """The control arms of a finished search."""
    reference, best, n_candidates = evolution.standing()
    ControlArms(
        config=request.config,
        framework=request.framework,
        bench=bench,
        stages=request.stages,
        roster=roster,
        budget=budget,
        reference=reference,
        evolved=best,
        n_candidates=n_candidates,
        source=source,
        listener=listener,
    ).run()

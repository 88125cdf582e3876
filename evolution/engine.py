"""The one loop: propose, guard, measure, judge, with every step in the ledger.

OpenEvolve's parts do the evolving (population, islands, LLM ensemble); this loop drives
them in one process and measures in killable workers. It is deterministic: a proposal
for iteration i is made on the population as it stands after the admission of iteration
i - `in_flight`, results are admitted in order, and neither the number of workers nor
their timing changes a choice. Resuming is running again: what the ledger holds is used
instead of asked for, so the loop arrives at exactly the state it was killed in.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from evolution.budget import Budget, BudgetSpent, stop_payload
from evolution.candidate import Candidate
from evolution.config import EvolveConfig
from evolution.confirmation import confirm, make_plan
from evolution.fitness import LEAST_SIZES, Cell, advantage, combined_score, paired_gain
from evolution.guarding import Guarding
from evolution.measurement import Measurement
from evolution.population import Population
from evolution.proposers.roster import Roster
from evolution.proposing import Proposing
from evolution.race_course import Course
from evolution.result import Result
from evolution.stages import RunFactory, Stage
from evolution.training_cost import candidate_tokens
from frameworks.program import Program

if TYPE_CHECKING:
    from evolution.ledger import Ledger
    from evolution.proposers.prompt import ShownProgram
    from frameworks.registry import Framework
    from training.outcome import Outcome
    from training.run_spec import RunSpec

Listener = Callable[[str, Mapping[str, Any]], None]


class Evolution:
    """One evolution over open resources; `evolution.session` opens and closes them.

    Args:
        config: the run's configuration.
        framework: what evolves.
        stages: where candidates are measured in the search.
        confirmation_sizes: where the shortlist is confirmed.
        factory, ledger, measurement, guarding, roster: the run's parts; the roster holds the proposers.
        budget: what may be spent; None: no limit.
        source: ledger of the run that is replayed; None: proposers are asked.
        listener: called with (event, payload) as things happen.
    """

    def __init__(
        self,
        *,
        config: EvolveConfig,
        framework: Framework,
        stages: tuple[Stage, ...],
        confirmation_sizes: tuple[str, ...],
        factory: RunFactory,
        ledger: Ledger,
        measurement: Measurement,
        guarding: Guarding,
        roster: Roster,
        budget: Budget | None = None,
        source: Ledger | None = None,
        start: Program | None = None,
        listener: Listener | None = None,
    ) -> None:
        self._config = config
        self._framework = framework
        self._in_loop = tuple(stage for stage in stages if stage.in_loop)
        self._later = tuple(stage for stage in stages if not stage.in_loop)
        self._confirmation_sizes = confirmation_sizes
        self._factory = factory
        self._n_parameters = factory.n_parameters()
        self._ledger = ledger
        self._measurement = measurement
        self._guarding = guarding
        self._start = start
        self._listen = listener or (lambda event, payload: None)
        self._budget = budget or Budget(config.budget)
        self._population = Population(config.population, config.seed)
        self._reference = Candidate(
            program=framework.program(), iteration=0, parent=None, island=0, changes="the reference", losses={}
        )
        self._candidates: dict[str, Candidate] = {self._reference.program.identity: self._reference}
        self._course = (
            None
            if config.racing is None
            else Course(config.racing, self._in_loop, factory, self._reference.program.identity)
        )
        self._proposing = Proposing(
            config=config,
            framework=framework,
            ledger=ledger,
            population=self._population,
            guarding=guarding,
            roster=roster,
            shown=self._shown,
            noise=self._noise,
            budget=self._budget,
            source=source,
            on_reply=lambda account: self._listen("reply", {"spent": account.spent}),
        )

    def run(self) -> Result:
        """Search, then confirm."""
        self._measure_reference()
        self._admit_start_program()
        self._search()
        for stage in self._later:
            self._measure_stage(stage)
        shortlist = self._shortlist()
        if not shortlist:
            sentence = "Not promoted: no candidate led the reference in the search, so none was confirmed."
            self._ledger.record_once(
                "decision", {"what": "shortlist", "candidate": None, "reason": sentence}, key="shortlist"
            )
            return Result(verdicts=(), n_candidates=self._n_measured(), sentence=sentence)
        plan = make_plan(
            self._config.confirmation,
            self._reference.program.identity,
            [candidate.program.identity for candidate in shortlist],
            self._confirmation_sizes,
            self._factory.confirmation_seeds(),
        )
        self._listen("confirmation", {"plan": plan.to_json()})
        verdicts = confirm(
            plan,
            {identity: candidate.program for identity, candidate in self._candidates.items()},
            ledger=self._ledger,
            measurement=self._measurement,
            factory=self._factory,
        )
        best = next((verdict for verdict in verdicts if verdict.decision == "promoted"), verdicts[0])
        return Result(
            verdicts=tuple(v.to_json() for v in verdicts), n_candidates=self._n_measured(), sentence=best.sentence
        )

    def standing(self) -> tuple[Candidate, Candidate | None, int]:
        """After `run`: the reference, the best candidate of the search, and how many were measured or failed."""
        ranked = self._ranked()
        return self._reference, ranked[0] if ranked else None, len(self._candidates) - 1

    def _submit(self, candidate: Candidate, stages: tuple[Stage, ...]) -> list[tuple[Cell, Future[Outcome]]]:
        identity = candidate.program.identity
        return self._submit_specs(
            candidate,
            [self._factory.search(identity, stage, index) for stage in stages for index in range(stage.seeds)],
        )

    def _submit_specs(self, candidate: Candidate, specs: list[RunSpec]) -> list[tuple[Cell, Future[Outcome]]]:
        if self._course is not None:
            self._course.charge(sum(spec.tokens for spec in specs))
        return [((spec.size, spec.seed), self._measurement.submit(spec, candidate.program.source)) for spec in specs]

    def _enter(self, candidate: Candidate) -> list[tuple[Cell, Future[Outcome]]]:
        """Submit what every candidate is measured at: all of the first stages, or in a race its first rung."""
        if self._course is None:
            return self._submit(candidate, self._in_loop)
        return self._submit_specs(candidate, [self._course.spec(candidate.program.identity, 0)])

    def _race(self, course: Course, candidate: Candidate) -> None:
        """Measure a candidate further, rung by rung, until it is stopped, fails or has run them all."""

        def advance(rung: int) -> bool:
            self._collect(candidate, self._submit_specs(candidate, [course.spec(candidate.program.identity, rung)]))
            return candidate.failure is None

        if candidate.failure is not None:
            return
        stop = course.follow(candidate.program.identity, candidate.losses, self._reference.losses, advance)
        if stop is not None:
            self._ledger.record_once(
                "decision",
                {
                    "what": "stopped_early",
                    "candidate": candidate.program.identity,
                    "rule": stop.rule,
                    "reason": stop.reason,
                },
                key=f"race:{candidate.program.identity}",
            )
            self._listen("stopped_early", {"candidate": candidate.program.identity, "reason": stop.reason})

    def _collect(self, candidate: Candidate, futures: list[tuple[Cell, Future[Outcome]]]) -> None:
        """Wait for the runs; a failure of any is the candidate's failure."""
        from training.outcome import explain

        for cell, future in futures:
            outcome = future.result()
            if outcome.status == "completed":
                candidate.losses[cell] = outcome.val_loss
            elif candidate.failure is None:
                candidate.failure = f"at size {cell[0]}, seed {cell[1]}: {explain(outcome)}"

    def _measure_reference(self) -> None:
        reference = self._reference
        self._ledger.record_once(
            "candidate",
            {
                "candidate": reference.program.identity,
                "framework": self._framework.name,
                "block": reference.program.block,
                "parent": None,
                "iteration": 0,
                "changes": "the framework's own block: softmax attention, the reference",
                "reference": True,
            },
            key=reference.program.identity,
        )
        self._collect(reference, self._submit(reference, self._in_loop))
        if reference.failure is not None:
            raise RuntimeError(f"the reference itself failed {reference.failure}; nothing can be compared with it")
        self._proposing.know(reference.program)
        self._admit(reference)

    def _admit_start_program(self) -> None:
        if self._start is None or self._start.identity == self._reference.program.identity:
            return
        rejection = self._guarding.reject(self._start)
        self._proposing.know(self._start)
        if rejection is not None:
            self._listen("rejected", {"candidate": self._start.identity, "iteration": 0, "reason": rejection})
            self._ledger.record_once(
                "decision",
                {"what": "start_program", "candidate": self._start.identity, "reason": rejection},
                key="start_program",
            )
            return
        self._ledger.record_once(
            "candidate",
            {
                "candidate": self._start.identity,
                "framework": self._framework.name,
                "block": self._start.block,
                "parent": self._reference.program.identity,
                "iteration": 0,
                "changes": "the start program",
            },
            key=self._start.identity,
        )
        candidate = Candidate(
            program=self._start,
            iteration=0,
            parent=self._reference.program.identity,
            island=0,
            changes="the start program",
            losses={},
        )
        self._admit_measured(candidate, self._enter(candidate))

    def _search(self) -> None:
        pending: deque[tuple[Candidate, list[tuple[Cell, Future[Outcome]]]]] = deque()
        tokens = candidate_tokens(self._factory, self._reference.program.identity, self._in_loop)
        for iteration in range(1, self._config.iterations + 1):
            while len(pending) >= self._config.in_flight:
                self._admit_measured(*pending.popleft())
            if self._course is not None and not self._course.affords_rung(0):
                self._note_spent(self._course, f"iteration {iteration} was not begun")
                break
            try:
                self._budget.check_candidate(tokens)
                accepted = self._proposing.next(iteration)
            except BudgetSpent as spent:
                stop = stop_payload(spent, iteration)
                self._ledger.record_once("decision", stop, key="budget")
                self._listen("budget", stop)
                break
            if accepted is None:
                self._listen("no_candidate", {"iteration": iteration})
                continue
            candidate = Candidate(
                program=accepted.program,
                iteration=iteration,
                parent=accepted.parent,
                island=accepted.island,
                changes=accepted.changes,
                losses={},
            )
            self._listen("accepted", {"candidate": accepted.program.identity, "iteration": iteration})
            self._budget.charge_candidate(tokens)
            pending.append((candidate, self._enter(candidate)))
        while pending:
            self._admit_measured(*pending.popleft())

    def _admit_measured(self, candidate: Candidate, futures: list[tuple[Cell, Future[Outcome]]]) -> None:
        self._collect(candidate, futures)
        if self._course is not None:
            self._race(self._course, candidate)
        self._admit(candidate)

    def _note_spent(self, course: Course, consequence: str) -> None:
        """Put on record that the token budget ended something."""
        reason = f"{course.spent:,} training tokens are spent and the budget allows no further run: {consequence}"
        self._ledger.record_once(
            "decision", {"what": "budget", "candidate": None, "reason": reason}, key=f"budget:{consequence}"
        )
        self._listen("budget", {"reason": reason})

    def _admit(self, candidate: Candidate) -> None:
        """Enter a measured candidate into the population, or note why it failed."""
        from evolution.proposers.prompt import Failure

        identity = candidate.program.identity
        self._candidates[identity] = candidate
        if candidate.failure is not None:
            self._proposing.note_failure(
                Failure(status="failed", reason=f"{candidate.changes or identity[:12]}: {candidate.failure}")
            )
            score, gain = 0.0, None
        else:
            score = combined_score(self._reference.losses, candidate.losses)
            gain = paired_gain(self._reference.losses, candidate.losses)
            metrics = {"combined_score": score}
            self._population.admit(
                identity,
                candidate.program.block,
                metrics,
                parent=candidate.parent,
                iteration=candidate.iteration,
                island=candidate.island,
            )
            if candidate is self._reference:
                # Every island starts from the reference.
                for island in range(1, self._config.population.islands):
                    self._population.admit(
                        f"{identity}@{island}",
                        candidate.program.block,
                        metrics,
                        parent=None,
                        iteration=0,
                        island=island,
                    )
        self._proposing.credit(identity, gain)
        payload = {
            "candidate": identity,
            "iteration": candidate.iteration,
            "stage": "in_loop",
            "combined_score": score,
            "paired_gain": gain,
            "failure": candidate.failure,
            "changes": candidate.changes,
        }
        self._ledger.record_once("fitness", payload, key=f"in_loop:{identity}")
        self._listen("measured", payload)

    def _measure_stage(self, stage: Stage) -> None:
        """Measure the best so far at one more size, the reference beside them."""
        keep = stage.keep if stage.keep is not None else len(self._candidates)
        entrants = self._affordable(stage, self._ranked()[:keep])
        if not entrants:
            return
        self._listen(
            "stage",
            {"stage": stage.index, "size": stage.size, "candidates": [c.program.identity for c in entrants]},
        )
        submitted = [(candidate, self._submit(candidate, (stage,))) for candidate in (self._reference, *entrants)]
        for candidate, futures in submitted:
            self._collect(candidate, futures)
        if self._reference.failure is not None:
            raise RuntimeError(f"the reference itself failed {self._reference.failure}")
        survivors = {candidate.program.identity for candidate in entrants if candidate.failure is None}
        for identity, candidate in self._candidates.items():
            if candidate is self._reference or candidate.failure is not None or identity in survivors:
                continue
            self._ledger.record_once(
                "decision",
                {
                    "what": "not_kept",
                    "candidate": identity,
                    "stage": stage.index,
                    "reason": f"not among the best {keep} that went on to size {stage.size}",
                },
                key=f"stage{stage.index}:{identity}",
            )
        for candidate in entrants:
            gain = None if candidate.failure else paired_gain(self._reference.losses, candidate.losses)
            payload = {
                "candidate": candidate.program.identity,
                "iteration": candidate.iteration,
                "stage": f"{stage.index}:{stage.size}",
                "paired_gain": gain,
                "failure": candidate.failure,
                "changes": candidate.changes,
            }
            self._ledger.record_once("fitness", payload, key=f"{stage.index}:{candidate.program.identity}")
            self._listen("measured", payload)

    def _affordable(self, stage: Stage, entrants: list[Candidate]) -> list[Candidate]:
        """As many of the best as the token budget allows at a stage, the reference's runs included."""
        if self._course is None or not entrants:
            return entrants
        identity = self._reference.program.identity
        tokens = sum(self._factory.search(identity, stage, index).tokens for index in range(stage.seeds))
        count = len(entrants)
        while count and not self._course.affords((count + 1) * tokens):
            count -= 1
        if count < len(entrants):
            self._note_spent(self._course, f"{count} of {len(entrants)} candidates went on to size {stage.size}")
        return entrants[:count]

    def _ranked(self) -> list[Candidate]:
        """Candidates without failure that were measured furthest, best paired gain first."""
        alive = [c for c in self._candidates.values() if c is not self._reference and c.failure is None]
        furthest = max((len(c.losses) for c in alive), default=0)
        contenders = [c for c in alive if len(c.losses) == furthest]
        return sorted(contenders, key=lambda c: (-self._advantage(c), c.program.identity))

    def _advantage(self, candidate: Candidate) -> float:
        """The configured fitness over the reference; the default until enough sizes are measured for it."""
        name = self._config.fitness
        if len({size for size, _ in candidate.losses}) < LEAST_SIZES[name]:
            name = "paired_gain"
        return advantage(name, self._reference.losses, candidate.losses, self._n_parameters)

    def _shortlist(self) -> list[Candidate]:
        """The best that led the reference, recorded before the confirmation is planned."""
        leading = [c for c in self._ranked() if self._advantage(c) > 0]
        chosen = leading[: self._config.confirmation.shortlist]
        for place, candidate in enumerate(chosen, start=1):
            gain = paired_gain(self._reference.losses, candidate.losses)
            self._ledger.record_once(
                "decision",
                {
                    "what": "shortlisted",
                    "candidate": candidate.program.identity,
                    "reason": f"place {place} in the search, {gain:.4f} nats a token better than the reference",
                },
                key=f"shortlist:{candidate.program.identity}",
            )
        return chosen

    def _n_measured(self) -> int:
        return sum(1 for c in self._candidates.values() if c is not self._reference and c.failure is None)

    def _shown(self, identity: str) -> ShownProgram:
        """How a prompt shows a candidate: its block and its losses beside the reference's."""
        from evolution.proposers.prompt import ShownProgram, SizeLoss

        candidate = self._candidates[identity]
        losses = []
        for size in dict.fromkeys(stage.size for stage in self._in_loop):
            cells = [cell for cell in candidate.losses if cell[0] == size]
            if cells:
                losses.append(
                    SizeLoss(
                        size=size,
                        loss=sum(candidate.losses[cell] for cell in cells) / len(cells),
                        reference_loss=sum(self._reference.losses[cell] for cell in cells) / len(cells),
                        seeds=len(cells),
                    )
                )
        return ShownProgram(block=candidate.program.block, losses=losses, note=candidate.changes)

    def _noise(self) -> float | None:
        """SD over seeds of the reference's loss at the first size, in nats, a bound on the paired noise."""
        size = self._in_loop[0].size
        losses = [loss for (at, _), loss in self._reference.losses.items() if at == size]
        return statistics.stdev(losses) if len(losses) > 1 else None

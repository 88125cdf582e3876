"""From a sampled parent to a guarded candidate, every attempt in the ledger.

One attempt: a proposer is chosen, OpenEvolve's population gives a parent and inspirations,
the prompt is rendered, the budget is asked, the proposer answers, the block is taken out of
the reply, spliced by us, looked up (a duplicate is answered from the ledger) and guarded.
An attempt the ledger already holds is not asked again: its recorded reply is used, so that
resuming a run is replaying it. A replay reads the replies of another run's ledger.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from data.keyed_random import seed_of
from evolution.budget import Budget, BudgetSpent
from evolution.config import EvolveConfig
from evolution.guidance import Guidance, draw_withheld
from evolution.population import Sample
from evolution.proposers.client import Answer, EndpointClient, is_final, is_passing
from evolution.proposers.price import dollars
from evolution.proposers.roster import Arm, Roster
from frameworks.program import Program, ProgramError

if TYPE_CHECKING:
    from evolution.guarding import Guarding
    from evolution.ledger import Ledger
    from evolution.proposers.component import Request
    from evolution.proposers.prompt import Failure, Prompt, ShownProgram
    from frameworks.registry import Framework

__all__ = ["Accepted", "Answer", "EndpointClient", "Proposing", "summary_of"]


def summary_of(reply: str) -> str:
    """What a reply says it changed: the names of its listed changes, or the start of its first sentence."""
    rationale = reply.partition("```")[0].strip()
    lines = [line.strip() for line in rationale.splitlines() if line.strip()]
    listed = [line[2:].partition(":")[0].strip() for line in lines if line.startswith("- ")]
    text = " + ".join(listed) if listed else (lines[0] if lines else "")
    return text if len(text) <= 160 else text[:160].rstrip() + " ..."


class Parents(Protocol):
    """Whatever draws a parent: OpenEvolve's population, or a control arm's."""

    def sample(self, iteration: int, attempt: int, inspirations: int) -> Sample:
        """What one attempt at one iteration starts from."""
        ...


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A new candidate that passed every guard."""

    program: Program
    iteration: int
    parent: str
    island: int
    changes: str


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A proposal that became a candidate: who made it, in how many seconds, for how many dollars."""

    arm: int
    seconds: float
    dollars: float | None


class Proposing:
    """Asks for candidates until one is new and passes the guards.

    Args:
        config: the run's configuration.
        framework: what evolves.
        ledger: where every attempt is recorded and looked up.
        population: gives parents.
        guarding: checks a program before anything is spent on it.
        roster: the proposers.
        shown: how a candidate is shown in a prompt, by identity.
        noise: SD of the paired difference of equal programs, as far as it is known.
        budget: what may be spent; None: everything.
        source: ledger of the run that is replayed; None: proposers are asked.
        prefix: of the ledger's keys; a control arm has one of its own.
        on_reply: called with the budget after every reply of an LLM.
    """

    def __init__(
        self,
        *,
        config: EvolveConfig,
        framework: Framework,
        ledger: Ledger,
        population: Parents,
        guarding: Guarding,
        roster: Roster,
        shown: Callable[[str], ShownProgram],
        noise: Callable[[], float | None],
        budget: Budget | None = None,
        source: Ledger | None = None,
        prefix: str = "",
        on_reply: Callable[[Budget], None] | None = None,
    ) -> None:
        from evolution.proposers.prompt import prompt_hash

        self._config = config
        self._framework = framework
        self._ledger = ledger
        self._population = population
        self._guarding = guarding
        self._roster = roster
        self._shown = shown
        self._noise = noise
        self._budget = budget or Budget(config.budget)
        self._source = source
        self._prefix = prefix
        self._on_reply = on_reply or (lambda budget: None)
        self._prompt_hash = prompt_hash()
        self._known: set[str] = set()
        self._by_behaviour: dict[str, str] = {}
        self._failures: list[Failure] = []
        self._asked: dict[str, _Asked] = {}

    def know(self, program: Program) -> None:
        """Count a program as seen, so that proposing it again, or a copy that does the same, is a duplicate."""
        self._known.add(program.identity)
        self._guarding.reject(program)
        self._original(program)

    def _original(self, program: Program) -> str:
        """Identity of the first program that does the same; the program's own where it is the first."""
        found = self._guarding.fingerprint(program)
        return program.identity if found is None else self._by_behaviour.setdefault(found, program.identity)

    def note_failure(self, failure: Failure) -> None:
        """Tell later prompts why a candidate failed."""
        self._failures.append(failure)

    def credit(self, identity: str, gain: float | None) -> None:
        """Tell the choice of proposers what a candidate gained, in nats; None: it failed."""
        asked = self._asked.pop(identity, None)
        if asked is not None:
            scale = max(self._noise() or 0.0, self._config.confirmation.least_effect, 1e-6)
            value = None if gain is None else gain / scale
            self._roster.credit(asked.arm, value, seconds=asked.seconds, dollars=asked.dollars)

    def next(self, iteration: int) -> Accepted | None:
        """The candidate of an iteration, or None when every attempt failed (each is in the ledger).

        Raises:
            BudgetSpent: nothing more may be asked, or there is nobody left to ask.
        """
        for attempt in range(self._config.proposer.attempts):
            accepted = self._attempt(iteration, attempt)
            if accepted is not None:
                return accepted
        return None

    def _attempt(self, iteration: int, attempt: int) -> Accepted | None:
        from evolution.proposers.prompt import Failure

        closed = self._roster.why_closed
        if closed is not None:
            raise BudgetSpent(f"no proposer is left to ask ({closed})")
        index = self._roster.choose(iteration, attempt)
        arm = self._roster.arms[index]
        sample = self._population.sample(iteration, attempt, self._config.proposer.inspirations)
        withheld = draw_withheld(self._config.guidance, self._config.seed, iteration, attempt) if arm.uses_llm else None
        answer = self._answer(arm, sample, withheld, iteration, attempt)
        program, status, reason = self._read(arm, answer, sample)
        changes = summary_of(answer.text) if program is not None and answer.text is not None else ""
        cost = _dollars(arm, answer)
        self._ledger.record_once(
            "proposal",
            {
                "iteration": iteration,
                "attempt": attempt,
                "proposer": arm.name,
                "style": arm.style,
                "withheld": withheld,
                "parent": sample.parent,
                "inspirations": list(sample.inspirations),
                "reply": answer.text,
                "prompt_tokens": answer.prompt_tokens,
                "completion_tokens": answer.completion_tokens,
                "dollars": cost,
                "seconds": answer.seconds,
                "status": status,
                "reason": reason,
                "candidate": program.identity if program else None,
                "changes": changes,
                **({"arm": self._prefix} if self._prefix else {}),
            },
            key=self._key(iteration, attempt),
        )
        if is_final(answer.error):
            self._roster.close(index, answer.error or "")
        if status in ("unparsable", "rejected"):
            self.note_failure(Failure(status=status, reason=reason))
        if status != "accepted" or program is None:
            self._roster.credit(index, None, seconds=answer.seconds, dollars=cost)
            return None
        self._asked[program.identity] = _Asked(arm=index, seconds=answer.seconds, dollars=cost)
        return self._accept(program, iteration, sample, changes)

    def _key(self, iteration: int, attempt: int) -> str:
        return f"{self._prefix}{'.' if self._prefix else ''}{iteration}.{attempt}"

    def _answer(self, arm: Arm, sample: Sample, withheld: str | None, iteration: int, attempt: int) -> Answer:
        """The reply on record, or a new one, which is on record before anyone acts on it."""
        key = self._key(iteration, attempt)
        prompt, grammar = self._prompt(arm, sample, withheld, iteration, attempt)
        recorded = self._ledger.event("reply", key)
        if recorded is None and self._source is not None:
            recorded = self._source.event("reply", key)
            if recorded is None:
                raise BudgetSpent(f"the replayed run was asked for nothing more after iteration {iteration - 1}")
            self._ledger.record("reply", recorded.payload, key=key)
        if recorded is not None:
            answer = Answer(**{name: recorded.payload[name] for name in Answer.__dataclass_fields__})
            self._book(arm, prompt, answer)
            return answer
        if arm.client is None:
            raise RuntimeError(f"iteration {iteration}, attempt {attempt} is not on record and no endpoint is given")
        left = self._budget.check_call(prompt, arm.max_tokens, arm.price, uses_llm=arm.uses_llm)
        seed = seed_of("propose", self._config.seed, iteration, attempt) % 2**31
        answer = arm.client.ask(prompt.system, prompt.user, seed, grammar=grammar, timeout=left)
        payload = {
            "iteration": iteration,
            "attempt": attempt,
            "proposer": arm.name,
            "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}],
            "prompt_hash": self._prompt_hash,
            "grammar": grammar,
            "seed": seed,
            "withheld": withheld,
        }
        self._ledger.record("reply", payload | dataclasses.asdict(answer), key=key)
        self._book(arm, prompt, answer)
        if is_passing(answer.error) and attempt + 1 < self._config.proposer.attempts:
            time.sleep(min(self._config.proposer.backoff * 2**attempt, left if left is not None else float("inf")))
        return answer

    def _book(self, arm: Arm, prompt: Prompt, answer: Answer) -> None:
        if arm.uses_llm:
            self._budget.charge(prompt, answer, arm.max_tokens, arm.price)
            self._on_reply(self._budget)

    def _prompt(
        self, arm: Arm, sample: Sample, withheld: str | None, iteration: int, attempt: int
    ) -> tuple[Prompt, str | None]:
        """The prompt of an attempt, and the grammar its reply must follow."""
        guidance = Guidance(
            parent=self._shown(sample.parent),
            others=[self._shown(identity) for identity in sample.inspirations],
            failures=self._failures[:-6:-1],
            noise=self._noise(),
        ).without(withheld)
        kept: dict[str, Any] = {"others": guidance.others, "failures": guidance.failures, "noise": guidance.noise}
        if arm.style == "component":
            from evolution.proposers.component import grammar
            from evolution.proposers.component_prompt import render_component_prompt

            request = self._request(guidance.parent.block, iteration, attempt)
            return render_component_prompt(request, guidance.parent, **kept), grammar(request) if arm.grammar else None
        from evolution.proposers.prompt import render_prompt

        return render_prompt(self._framework, guidance.parent, **kept), None

    def _request(self, block: str, iteration: int, attempt: int) -> Request:
        from evolution.proposers.component import draw_request

        return draw_request(block, random.Random(seed_of("component", self._config.seed, iteration, attempt)))

    def _read(self, arm: Arm, answer: Answer, sample: Sample) -> tuple[Program | None, str, str]:
        """The program in a reply, with the proposal's status and its reason."""
        from evolution.proposers.component import component_block
        from evolution.proposers.reply import ReplyError, extract_block

        if answer.text is None:
            return None, "endpoint_error", answer.error or "the endpoint returned an empty reply"
        try:
            parent = self._shown(sample.parent).block
            if arm.style == "component":
                block = component_block(answer.text, self._framework, parent)
            else:
                block = extract_block(answer.text, self._framework, parent)
            program = self._framework.program(block)
        except ReplyError as failure:
            return None, "unparsable", str(failure)
        except ProgramError as failure:
            return None, "rejected", str(failure)
        return program, *self._judge(program)

    def _judge(self, program: Program) -> tuple[str, str]:
        """Status and reason of a program that parsed."""
        if program.identity in self._known:
            return "duplicate", f"the same program as candidate {program.identity[:12]}, already proposed"
        rejection = self._guarding.reject(program)
        self._known.add(program.identity)
        if rejection is not None:
            return "rejected", rejection
        original = self._original(program)
        if original != program.identity:
            return "duplicate", (
                f"other text, but the same outputs and gradients on fixed inputs as candidate {original[:12]}, "
                "already proposed"
            )
        return "accepted", "new, and passed every guard"

    def _accept(self, program: Program, iteration: int, sample: Sample, changes: str) -> Accepted:
        self._ledger.record_once(
            "candidate",
            {
                "candidate": program.identity,
                "framework": self._framework.name,
                "block": program.block,
                "parent": sample.parent,
                "iteration": iteration,
                "changes": changes,
                **({"arm": self._prefix} if self._prefix else {}),
            },
            key=program.identity,
        )
        return Accepted(
            program=program, iteration=iteration, parent=sample.parent, island=sample.island, changes=changes
        )


def _dollars(arm: Arm, answer: Answer) -> float | None:
    """What a call cost; None where usage or price is not known."""
    if arm.price is None or answer.prompt_tokens is None or answer.completion_tokens is None:
        return None
    return dollars(arm.price, answer.prompt_tokens, answer.completion_tokens)

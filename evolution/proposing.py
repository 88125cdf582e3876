"""From a sampled parent to a guarded candidate, every attempt in the ledger.

One attempt: OpenEvolve's population gives a parent and inspirations, the prompt is
rendered, OpenEvolve's LLM ensemble asks the endpoint, the block is taken out of the
reply, spliced by us, looked up (a duplicate is answered from the ledger) and guarded.
An attempt the ledger already holds is not asked again: its recorded reply is used, so
that resuming a run is replaying it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.keyed_random import seed_of
from evolution.config import EvolveConfig
from evolution.population import Population, Sample
from frameworks.program import Program, ProgramError

if TYPE_CHECKING:
    from evolution.guarding import Guarding
    from evolution.ledger import Ledger
    from evolution.proposers.endpoint import EndpointConfig
    from evolution.proposers.prompt import Failure, ShownProgram
    from frameworks.registry import Framework


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an endpoint said.

    Attributes:
        text: the reply, or None when there was none.
        error: why there was none, in one sentence.
        prompt_tokens, completion_tokens: as reported; None means not reported, not zero.
        seconds: wall seconds of the call.
    """

    text: str | None
    error: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float


class EndpointClient:
    """OpenEvolve's `LLMEnsemble` on one endpoint, one request a call, no hidden retries."""

    def __init__(self, endpoint: EndpointConfig) -> None:
        self._endpoint = endpoint
        self._timeout = endpoint.timeout
        self._key = endpoint.read_key()
        self._ensemble = self._connect()

    def _connect(self) -> Any:
        from openevolve.llm.ensemble import LLMEnsemble

        from evolution.proposers.endpoint import openevolve_model

        return LLMEnsemble([openevolve_model(self._endpoint)])

    def ask(self, system: str, user: str, seed: int) -> Answer:
        """Ask once; a failure of any kind is an Answer with `error`."""
        start = time.monotonic()
        text: str | None = None
        error: str | None = None
        try:
            text = asyncio.run(self._ask(system, user, seed))
        except Exception as failure:  # an endpoint may fail in any way its client library knows
            said = " ".join(str(failure).replace(self._key, "[key]").split())
            error = f"{type(failure).__name__}: {said}"[:500]
        else:
            if not isinstance(text, str) or not text.strip():
                text, error = None, "the endpoint returned an empty reply"
            else:
                text = text.encode("utf-8", "backslashreplace").decode("utf-8")  # JSON can hold half a character
        usage = (self._ensemble.last_usage or {}) if error is None else {}
        return Answer(
            text=text,
            error=error,
            prompt_tokens=_count(usage.get("prompt_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
            seconds=time.monotonic() - start,
        )

    async def _ask(self, system: str, user: str, seed: int) -> Any:
        self._ensemble.random_state.seed(seed)
        call = self._ensemble.generate_with_context(system, [{"role": "user", "content": user}], seed=seed)
        try:
            return await asyncio.wait_for(call, timeout=self._timeout + 5.0)
        except TimeoutError:
            self._hang_up()
            raise TimeoutError(f"no complete reply within {self._timeout:g} s") from None

    def _hang_up(self) -> None:
        """Close the connection of a request that timed out, and make another for the next one.

        The request's thread reads on for as long as single bytes trickle in, and the event loop does not end before it.
        """
        for model in self._ensemble.models:
            model.client.close()
        self._ensemble = self._connect()


def _count(tokens: Any) -> int | None:
    """A number of tokens as an endpoint reports it; None where it is none."""
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0 else None


def summary_of(reply: str) -> str:
    """What a reply says it changed: the names of its listed changes, or the start of its first sentence."""
    rationale = reply.partition("```")[0].strip()
    lines = [line.strip() for line in rationale.splitlines() if line.strip()]
    listed = [line[2:].partition(":")[0].strip() for line in lines if line.startswith("- ")]
    text = " + ".join(listed) if listed else (lines[0] if lines else "")
    return text if len(text) <= 160 else text[:160].rstrip() + " ..."


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A new candidate that passed every guard."""

    program: Program
    iteration: int
    parent: str
    island: int
    changes: str


class Proposing:
    """Asks for candidates until one is new and passes the guards.

    Args:
        config: the run's configuration.
        framework: what evolves.
        ledger: where every attempt is recorded and looked up.
        population: gives parents.
        guarding: checks a program before anything is spent on it.
        client: the endpoint, or None in a replay, where every attempt must be on record.
        shown: how a candidate is shown in a prompt, by identity.
        proposer_name: recorded with each proposal.
        noise: SD of the paired difference of equal programs, as far as it is known.
    """

    def __init__(
        self,
        *,
        config: EvolveConfig,
        framework: Framework,
        ledger: Ledger,
        population: Population,
        guarding: Guarding,
        client: EndpointClient | None,
        shown: Callable[[str], ShownProgram],
        proposer_name: str,
        noise: Callable[[], float | None],
    ) -> None:
        from evolution.proposers.prompt import prompt_hash

        self._config = config
        self._framework = framework
        self._ledger = ledger
        self._population = population
        self._guarding = guarding
        self._client = client
        self._shown = shown
        self._proposer_name = proposer_name
        self._noise = noise
        self._prompt_hash = prompt_hash()
        self._known: set[str] = set()
        self._by_behaviour: dict[str, str] = {}
        self._failures: list[Failure] = []

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

    def next(self, iteration: int) -> Accepted | None:
        """The candidate of an iteration, or None when every attempt failed (each is in the ledger)."""
        for attempt in range(self._config.proposer.attempts):
            accepted = self._attempt(iteration, attempt)
            if accepted is not None:
                return accepted
        return None

    def _attempt(self, iteration: int, attempt: int) -> Accepted | None:
        from evolution.proposers.prompt import Failure

        sample = self._population.sample(iteration, attempt, self._config.proposer.inspirations)
        answer = self._answer(sample, iteration, attempt)
        program, status, reason = self._read(answer, sample)
        changes = summary_of(answer.text) if program is not None and answer.text is not None else ""
        self._ledger.record_once(
            "proposal",
            {
                "iteration": iteration,
                "attempt": attempt,
                "proposer": self._proposer_name,
                "parent": sample.parent,
                "inspirations": list(sample.inspirations),
                "reply": answer.text,
                "prompt_tokens": answer.prompt_tokens,
                "completion_tokens": answer.completion_tokens,
                "seconds": answer.seconds,
                "status": status,
                "reason": reason,
                "candidate": program.identity if program else None,
                "changes": changes,
            },
            key=f"{iteration}.{attempt}",
        )
        if status in ("unparsable", "rejected"):
            self.note_failure(Failure(status=status, reason=reason))
        if status != "accepted" or program is None:
            return None
        return self._accept(program, iteration, sample, changes)

    def _answer(self, sample: Sample, iteration: int, attempt: int) -> Answer:
        """The reply on record, or a new one, which is on record before anyone acts on it."""
        from evolution.proposers.prompt import render_prompt

        key = f"{iteration}.{attempt}"
        recorded = self._ledger.event("reply", key)
        if recorded is not None:
            return Answer(**{name: recorded.payload[name] for name in Answer.__dataclass_fields__})
        if self._client is None:
            raise RuntimeError(f"iteration {iteration}, attempt {attempt} is not on record and no endpoint is given")
        prompt = render_prompt(
            self._framework,
            self._shown(sample.parent),
            others=[self._shown(identity) for identity in sample.inspirations],
            failures=self._failures[:-6:-1],
            noise=self._noise(),
        )
        answer = self._client.ask(
            prompt.system, prompt.user, seed_of("propose", self._config.seed, iteration, attempt) % 2**31
        )
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        self._ledger.record(
            "reply",
            {"iteration": iteration, "attempt": attempt, "messages": messages, "prompt_hash": self._prompt_hash}
            | dataclasses.asdict(answer),
            key=key,
        )
        if answer.error is not None and attempt + 1 < self._config.proposer.attempts:
            time.sleep(self._config.proposer.backoff * 2**attempt)
        return answer

    def _read(self, answer: Answer, sample: Sample) -> tuple[Program | None, str, str]:
        """The program in a reply, with the proposal's status and its reason."""
        from evolution.proposers.reply import ReplyError, extract_block

        if answer.text is None:
            return None, "endpoint_error", answer.error or "the endpoint returned an empty reply"
        try:
            block = extract_block(answer.text, self._framework, self._shown(sample.parent).block)
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
            },
            key=program.identity,
        )
        return Accepted(
            program=program, iteration=iteration, parent=sample.parent, island=sample.island, changes=changes
        )

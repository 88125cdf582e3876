"""Toy evolutions on the `debug` ladder with faults in them, and what each came to.

The innocents are replies of the operator catalogue. They are measured once with nothing
else running; whatever is injected later, their losses must stay the same to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.benches.faulty_endpoint import MODEL, EndpointFault, FaultyEndpoint
from experiments.benches.trap import SECRET

if TYPE_CHECKING:
    from data.corpus import Corpus
    from evolution.config import EvolveConfig
    from evolution.ledger import Ledger
    from evolution.measurement import Measurement
    from evolution.session import Bench
    from frameworks.program import Program

FRAMEWORK = "coefficient_dynamics"
REPLY_SECONDS = 2.0
_LEAST_SECONDS, _SLOWER = 8.0, 4.0
"""A disturbed run may take this long, or this many times what the innocents took alone."""
_SETTINGS: dict[str, Any] = {
    "framework": FRAMEWORK,
    "ladder": "debug",
    "workers": 2,
    "in_flight": 4,
    "corpus.source": "stories",
    "corpus.max_bytes": 400_000,
    "stages": [{"size": "d16", "seeds": 1}],
    "confirmation.seeds": 2,
    "confirmation.shortlist": 1,
    "confirmation.sizes": ["d16"],
    "proposer.kind": "endpoint",
    "proposer.model": MODEL,
    "proposer.attempts": 1,
    "proposer.timeout": REPLY_SECONDS,
    "limits.memory_gb": 0.5,
}

Losses = dict[tuple[str, str, int], float]
"""(candidate, size, seed) -> validation loss of a search run."""
Entry = tuple[str, str | EndpointFault]
"""A fault in a script: its name, and the hostile block's text or what the endpoint does."""


def toy_config(**changes: Any) -> EvolveConfig:
    """The toy run's configuration; `a__b` stands for the key `a.b`."""
    from evolution.config import load_config

    return load_config(None, None, _SETTINGS | {key.replace("__", "."): value for key, value in changes.items()})


def toy_corpus() -> Corpus:
    """The corpus of every toy run, built on first use."""
    from evolution.session import check_request, load_run_corpus

    config = toy_config()
    return load_run_corpus(config, check_request(config).ladder, lambda event, payload: None)


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What the ledger says of one faulty proposal."""

    status: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Innocents:
    """Good replies, and what their programs come to when nothing is injected.

    Attributes:
        replies: one a program.
        losses: of the reference and of each program.
        run_seconds, guard_seconds: limits a disturbed run may use.
    """

    replies: tuple[str, ...]
    losses: Losses
    run_seconds: float
    guard_seconds: float


@dataclass(frozen=True, kw_only=True)
class Disturbed:
    """A finished run with faults in it.

    Attributes:
        proposals: name of each fault -> its proposal.
        outcomes: candidate -> outcome of its search run.
        losses: of every completed search run.
        problems: what is wrong with the run as a whole; empty when every innocent was left alone.
    """

    proposals: Mapping[str, Proposal]
    outcomes: Mapping[str, Mapping[str, Any]]
    losses: Losses
    problems: list[str] = field(default_factory=list)


def good_replies(count: int, passes: Any = None) -> dict[str, Program]:
    """Replies of the operator catalogue to the reference, each with its program, all different.

    Args:
        count: how many.
        passes: called with a program; a reply whose program it refuses is left out.
    """
    from evolution.proposers.catalogue_reply import catalogue_reply
    from evolution.proposers.reply import extract_block
    from frameworks.registry import framework

    found = framework(FRAMEWORK)
    messages = [{"role": "user", "content": f"## Current program\n\n```python\n{found.start_block}```\n"}]
    replies: dict[str, Program] = {}
    for seed in range(100):
        reply = catalogue_reply(messages, found, seed)
        program = found.program(extract_block(reply, found, found.start_block))
        known = {entry.identity for entry in replies.values()}
        if program.identity not in known and (passes is None or passes(program)):
            replies[reply] = program
        if len(replies) == count:
            break
    return replies


def measure_innocents(bench: Bench, count: int) -> Innocents:
    """Choose good replies that pass the guards and measure them, nothing else running."""
    from evolution.session import check_request
    from frameworks.registry import framework

    guard_seconds: list[float] = []
    run_seconds: list[float] = []

    def passes(program: Program) -> bool:
        began = time.monotonic()
        passed = bench.guarding.reject(program) is None
        guard_seconds.append(time.monotonic() - began)
        return passed

    replies = good_replies(count, passes)
    stage = check_request(toy_config()).stages[0]
    losses: Losses = {}
    for program in (framework(FRAMEWORK).program(), *replies.values()):
        spec = bench.factory.search(program.identity, stage, 0)
        began = time.monotonic()
        outcome = bench.measurement.submit(spec, program.source).result()
        run_seconds.append(time.monotonic() - began)
        if outcome.status != "completed":
            raise RuntimeError(f"an innocent program failed with nothing else running: {outcome}")
        losses[program.identity, spec.size, spec.seed] = outcome.val_loss
    return Innocents(
        replies=tuple(replies),
        losses=losses,
        run_seconds=max(_LEAST_SECONDS, _SLOWER * max(run_seconds)),
        guard_seconds=max(_LEAST_SECONDS, _SLOWER * max(guard_seconds)),
    )


def _script(entries: Sequence[Entry], replies: Sequence[str]) -> list[str | EndpointFault]:
    """Each fault followed by a good reply, the good ones over and over."""
    script: list[str | EndpointFault] = []
    for index, (_, fault) in enumerate(entries):
        script.append(f"A proposal.\n\n```python\n{fault}```\n" if isinstance(fault, str) else fault)
        script.append(replies[index % len(replies)])
    return script


def guarded_run(folder: Path, entries: Sequence[Entry], innocents: Innocents) -> Disturbed:
    """A whole evolution through the session, on an endpoint that fails at every other request."""
    from evolution.ledger import Ledger
    from evolution.session import LEDGER_NAME, evolve

    script = _script(entries, innocents.replies)
    with FaultyEndpoint(script) as endpoint:
        config = toy_config(
            name="guarded",
            iterations=len(script),
            proposer__api_base=endpoint.base_url,
            limits__guard_seconds=innocents.guard_seconds,
        )
        result = evolve(config, folder)
    problems = [] if result.sentence else ["the run ended without a sentence"]
    if endpoint.n_requests != len(script):
        problems.append(f"{endpoint.n_requests} requests for {len(script)} proposals")
    with Ledger.open(folder / "guarded" / LEDGER_NAME, read_only=True) as ledger:
        return _observed(ledger, folder / "guarded", entries, innocents, problems)


def forced_run(folder: Path, bench: Bench, entries: Sequence[Entry], innocents: Innocents) -> Disturbed:
    """An evolution whose guards let everything through, in a sandbox that is warm already."""
    from evolution.engine import Evolution
    from evolution.guarding import Guarding
    from evolution.ledger import Ledger
    from evolution.projection import report_of_run
    from evolution.proposers.roster import check_roster, open_roster
    from evolution.session import check_request, manifest_of

    class OpenGate(Guarding):
        """Guards that let everything through."""

        def reject(self, program: Program) -> str | None:
            return None

    script = _script(entries, innocents.replies)
    folder.mkdir()
    with ExitStack() as stack:
        server = stack.enter_context(FaultyEndpoint(script))
        config = toy_config(
            iterations=len(script), limits__run_seconds=innocents.run_seconds, proposer__api_base=server.base_url
        )
        request = check_request(config)
        roster = stack.enter_context(open_roster(config, request.framework, check_roster(config)))
        ledger = stack.enter_context(Ledger.open(folder / "ledger.sqlite", create=True))
        ledger.record("run_started", manifest_of(request, bench.corpus, None))
        measurement = _measurement(ledger, bench, config, folder)
        stack.callback(measurement.close)
        evolution = Evolution(
            config=config,
            framework=request.framework,
            stages=request.stages,
            confirmation_sizes=request.confirmation_sizes,
            factory=bench.factory,
            ledger=ledger,
            measurement=measurement,
            guarding=OpenGate(
                ledger=ledger,
                sandbox=bench.sandbox,
                framework=request.framework,
                sizes=bench.factory.guard_sizes(),
                seed=config.seed,
                limits=config.limits,
            ),
            roster=roster,
        )
        result = evolution.run()
        ledger.record("run_finished", {"sentence": result.sentence, "n_candidates": result.n_candidates}, "end")
        report_of_run(ledger, folder)
        return _observed(ledger, folder, entries, innocents, [])


def _measurement(ledger: Ledger, bench: Bench, config: EvolveConfig, folder: Path) -> Measurement:
    from evolution.measurement import Measurement
    from frameworks.registry import framework

    return Measurement(
        ledger=ledger,
        sandbox=bench.sandbox,
        corpus=bench.corpus,
        directory=folder / "scratch",
        workers=config.workers or 1,
        limits=config.limits,
        reference=framework(FRAMEWORK).program().identity,
    )


def _observed(
    ledger: Ledger, directory: Path, entries: Sequence[Entry], innocents: Innocents, problems: list[str]
) -> Disturbed:
    """Read a finished run: every proposal, every outcome, and whether the innocents were left alone."""
    recorded = {event.payload["iteration"]: event.payload for event in ledger.proposals()}
    proposals = {}
    for index, (name, _) in enumerate(entries):
        payload = recorded.get(2 * index + 1, {"status": "not in the ledger", "reason": ""})
        proposals[name] = Proposal(status=payload["status"], reason=payload["reason"])
    outcomes: dict[str, Mapping[str, Any]] = {}
    losses: Losses = {}
    for run in ledger.runs(purpose="search"):
        outcomes[run.spec["candidate"]] = run.outcome
        if run.outcome["status"] == "completed":
            losses[run.spec["candidate"], run.spec["size"], run.spec["seed"]] = run.outcome["val_loss"]
    kept = sum(losses.get(key) == loss for key, loss in innocents.losses.items())
    if kept != len(innocents.losses):
        problems.append(f"only {kept} of {len(innocents.losses)} innocents have their undisturbed loss")
    if not (directory / "report.html").is_file():
        problems.append("there is no report")
    problems += ledger.integrity()
    if any(SECRET.encode() in path.read_bytes() for path in directory.rglob("*") if path.is_file()):
        problems.append("the planted key is in the run's files")
    return Disturbed(proposals=proposals, outcomes=outcomes, losses=losses, problems=problems)

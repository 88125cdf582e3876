"""Proposers: the embedded LLM runs to its report, replays exactly, faults and budgets are kept to, the bandit finds."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.benches.faulty_endpoint import ENDPOINT_FAULTS, MODEL, EndpointFault, FaultyEndpoint, leak_key
from experiments.benches.row import Row, Targets
from experiments.benches.toy_evolution import FRAMEWORK, toy_config

if TYPE_CHECKING:
    from experiments.benches.registry import Options

ITERATIONS, QUICK_ITERATIONS = 30, 2
ATTEMPTS = 3
PULLS, SEEDS, QUICK_SEEDS = 200, 200, 20
MEANS = (0.0, 0.3, 0.6)
PLANTED_KEY = "sk-planted-key-0123456789abcdef"


def measure(options: Options, targets: Targets) -> Iterator[Row]:
    """All rows; the first need the embedded model and fail with the command that installs it."""
    with tempfile.TemporaryDirectory(prefix="evoscale-proposers-") as folder:
        yield from _embedded(Path(folder), QUICK_ITERATIONS if options.quick else ITERATIONS, targets)
        yield from _misbehaving(Path(folder), ENDPOINT_FAULTS[:4] if options.quick else ENDPOINT_FAULTS, targets)
        yield from _budget(Path(folder), targets)
    share = bandit_share(QUICK_SEEDS if options.quick else SEEDS)
    yield targets.row("seeds on which the bandit finds the best of three", share, "share")


def _embedded(folder: Path, iterations: int, targets: Targets) -> Iterator[Row]:
    from evolution.ledger import Ledger
    from evolution.replay import differences, replay_config
    from evolution.session import LEDGER_NAME, evolve

    config = toy_config(
        name="embedded", iterations=iterations, proposer={"kind": "local", "model": "embedded", "attempts": 2}
    )
    result = evolve(config, folder)
    run = folder / "embedded"
    page = (run / "report.html").read_text(encoding="utf-8") if (run / "report.html").is_file() else ""
    ended = bool(result.sentence) and "Who proposed, and what came of it" in page
    part = "" if iterations >= ITERATIONS else " (a part of them)"
    yield targets.row(f"iterations of the embedded LLM, to a report with its rates{part}", iterations, "", holds=ended)
    with Ledger.open(run / LEDGER_NAME, read_only=True) as ledger:
        proposals = [event.payload for event in ledger.proposals()]
        share = sum(_is_static_pass(payload) for payload in proposals) / len(proposals)
        yield targets.row("replies that parse into a block that passes the static guards", share, "share")
        accepted = sum(payload["status"] == "accepted" for payload in proposals)
        yield targets.row("replies that became candidates", accepted / len(proposals), "share")
    evolve(replay_config(run, framework=FRAMEWORK, name="again", workers=None), folder, replay=run)
    with (
        Ledger.open(run / LEDGER_NAME, read_only=True) as first,
        Ledger.open(folder / "again" / LEDGER_NAME, read_only=True) as second,
    ):
        found = differences(first, second)
    yield targets.row("candidates, losses and verdicts that differ in its replay", len(found), "")


def _is_static_pass(payload: dict[str, Any]) -> bool:
    """Whether a proposal's reply held a block that every static guard let through."""
    from evolution.guards.registry import guards

    refused = tuple(f"guard {guard.name}:" for guard in guards("static"))
    if payload["status"] == "rejected":
        return payload["candidate"] is not None and not str(payload["reason"]).startswith(refused)
    return payload["status"] in ("accepted", "duplicate")


def _misbehaving(folder: Path, faults: tuple[EndpointFault, ...], targets: Targets) -> Iterator[Row]:
    """Every fault for every attempt of an iteration, with a key planted that one of the faults repeats."""
    from evolution.ledger import Ledger
    from evolution.session import LEDGER_NAME, evolve

    script = [fault for fault in (leak_key(PLANTED_KEY), *faults) for _ in range(ATTEMPTS)]
    before = os.environ.get("OPENAI_API_KEY")
    os.environ["OPENAI_API_KEY"] = PLANTED_KEY
    try:
        with FaultyEndpoint(script) as endpoint:
            config = toy_config(
                name="faulty",
                iterations=len(script) // ATTEMPTS,
                proposer__api_base=endpoint.base_url,
                proposer__attempts=ATTEMPTS,
                proposer__backoff=0.0,
            )
            result = evolve(config, folder)
            requests = endpoint.n_requests
    finally:
        if before is None:
            del os.environ["OPENAI_API_KEY"]
        else:
            os.environ["OPENAI_API_KEY"] = before
    with Ledger.open(folder / "faulty" / LEDGER_NAME, read_only=True) as ledger:
        replies = len(ledger.events("reply"))
    per_iteration = requests / config.iterations
    yield targets.row("requests an iteration when all of them fail", per_iteration, "", holds=bool(result.sentence))
    yield targets.row("requests without a reply in the ledger", requests - replies, "")
    files = [path for path in (folder / "faulty").rglob("*") if path.is_file()]
    leaks = sum(PLANTED_KEY.encode() in path.read_bytes() for path in files)
    yield targets.row("files of the run that hold the planted key", leaks, "")


def _budget(folder: Path, targets: Targets) -> Iterator[Row]:
    """An endpoint that uses more than it was allowed: how far past the budget its last call goes."""
    from evolution.ledger import Ledger
    from evolution.session import LEDGER_NAME, evolve

    limit, used = 60_000, 12_000
    fault = EndpointFault(
        name="spends",
        answer=lambda handler: handler.reply(
            "no block", usage={"prompt_tokens": used - 1, "completion_tokens": 1, "total_tokens": used}
        ),
    )
    with FaultyEndpoint([fault] * 40) as endpoint:
        config = toy_config(
            name="budget",
            iterations=30,
            proposer__api_base=endpoint.base_url,
            proposer__model=MODEL,
            proposer__max_tokens=64,
            budget={"llm_tokens": limit},
        )
        evolve(config, folder)
        calls = endpoint.n_requests
    with Ledger.open(folder / "budget" / LEDGER_NAME, read_only=True) as ledger:
        said = ledger.event("decision", "budget") is not None
    over = max(0, calls * used - limit)
    yield targets.row("calls beyond a token budget", -(-over // used), "", holds=said and calls > 0)


def bandit_share(seeds: int, first: int = 0) -> float:
    """Share of seeds on which the bandit asks the best of three simulated proposers most often."""
    from data.keyed_random import seed_of
    from evolution.proposers.bandit import Bandit

    found = 0
    for seed in range(first, first + seeds):
        rng = random.Random(seed_of("simulated proposers", seed))
        means = list(MEANS)
        rng.shuffle(means)
        bandit = Bandit(len(means), seed=seed)
        for _ in range(PULLS):
            arm = bandit.choose()
            bandit.credit(arm, rng.gauss(means[arm], 1.0))
        found += means[bandit.best()] == max(MEANS)
    return found / seeds

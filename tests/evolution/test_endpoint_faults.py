"""Every way an endpoint can fail, in one real evolution: each costs its own attempt and nothing else."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from evolution.ledger import Ledger
from evolution.proposers.endpoint import EndpointConfig
from evolution.proposing import EndpointClient
from evolution.session import LEDGER_NAME, evolve
from experiments.benches.faulty_endpoint import ENDPOINT_FAULTS, MODEL, FaultyEndpoint
from experiments.benches.row import targets_of
from experiments.benches.toy_evolution import good_replies, toy_config

TIMEOUT = 1.5
BY_NAME = {fault.name: fault for fault in ENDPOINT_FAULTS}


def losses_of_run(directory: Path) -> dict[tuple[str, str, int], float]:
    """Run to validation loss."""
    with Ledger.open(directory / LEDGER_NAME, read_only=True) as ledger:
        return {
            (run.spec["candidate"], run.spec["purpose"], run.spec["seed"]): run.outcome["val_loss"]
            for run in ledger.runs()
        }


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]], Any]:
    """A finished run on an endpoint that failed in every way, its proposals by fault, and its result."""
    runs = tmp_path_factory.mktemp("faulty")
    script = [entry for fault in ENDPOINT_FAULTS for entry in (fault, next(iter(good_replies(1))))]
    with FaultyEndpoint(script) as endpoint:
        config = toy_config(
            name="faulty", iterations=len(script), proposer__api_base=endpoint.base_url, proposer__timeout=TIMEOUT
        )
        result = evolve(config, runs)
    with Ledger.open(runs / "faulty" / LEDGER_NAME, read_only=True) as ledger:
        recorded = {event.payload["iteration"]: event.payload for event in ledger.proposals()}
    return runs / "faulty", {fault.name: recorded[2 * i + 1] for i, fault in enumerate(ENDPOINT_FAULTS)}, result


@pytest.mark.parametrize("name", list(BY_NAME))
def test_a_fault_is_recorded_with_its_type_and_a_reason(faulty: Any, name: str) -> None:
    payload = faulty[1][name]
    assert payload["status"] == targets_of("faults").bound(name)
    assert payload["reason"].strip()
    assert len(payload["reason"]) < 700
    assert payload["candidate"] is None
    assert payload["seconds"] < TIMEOUT + 6


def test_the_run_ends_with_a_report_and_the_good_replies_in_it(faulty: Any) -> None:
    directory, _, result = faulty
    assert result.n_candidates == 1
    assert result.sentence
    assert (directory / "report.html").is_file()
    with Ledger.open(directory / LEDGER_NAME, read_only=True) as ledger:
        statuses = [event.payload["status"] for event in ledger.proposals()]
        assert ledger.integrity() == []
    assert statuses.count("accepted") == 1
    assert statuses.count("duplicate") == len(ENDPOINT_FAULTS) - 1


def test_the_losses_are_those_of_a_run_without_faults(faulty: Any, tmp_path: Path) -> None:
    with FaultyEndpoint(list(good_replies(1))) as endpoint:
        evolve(toy_config(name="plain", iterations=1, proposer__api_base=endpoint.base_url), tmp_path)
    assert losses_of_run(tmp_path / "plain") == losses_of_run(faulty[0])


@pytest.mark.parametrize("name", ["endpoint: hangs", "endpoint: drips a byte at a time for ever"])
def test_no_reply_holds_a_request_past_its_time_limit(name: str) -> None:
    with FaultyEndpoint([BY_NAME[name], "fine"]) as endpoint:
        client = EndpointClient(EndpointConfig(api_base=endpoint.base_url, model=MODEL, timeout=0.5))
        began = time.monotonic()
        answer = client.ask("system", "user", 1)
        assert time.monotonic() - began < 4
        assert answer.text is None
        assert answer.error is not None
        assert "time" in answer.error.lower()
        assert client.ask("system", "user", 2).text == "fine"


def test_counts_of_tokens_that_are_none_are_not_recorded() -> None:
    with FaultyEndpoint([BY_NAME["endpoint: usage that is not finite"]]) as endpoint:
        client = EndpointClient(EndpointConfig(api_base=endpoint.base_url, model=MODEL, timeout=5))
        answer = client.ask("system", "user", 1)
    assert answer.text == "no block"
    assert answer.prompt_tokens is None

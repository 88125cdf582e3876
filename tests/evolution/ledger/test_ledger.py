"""The ledger's methods: events, runs, candidates, proposals, attempts, corpora."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evolution.ledger import (
    CorpusMismatchError,
    DuplicateEventError,
    DuplicateRunError,
    Ledger,
    LedgerError,
    PayloadError,
    require_one_corpus,
)

Json = dict[str, Any]
Make = Callable[..., Json]


def test_events_come_back_in_order_by_kind_and_after(ledger: Ledger) -> None:
    before = time.time()
    assert ledger.record("run_started", {"manifest": {"version": "0.1.0"}}) == 1
    assert ledger.record("candidate", {"block": "x = 1\n"}, key="abc") == 2
    assert ledger.record("run_started", {"resumed": True}) == 3
    assert [event.seq for event in ledger.events()] == [1, 2, 3]
    assert [event.payload for event in ledger.events("run_started")] == [
        {"manifest": {"version": "0.1.0"}},
        {"resumed": True},
    ]
    assert [event.seq for event in ledger.events(after=2)] == [3]
    assert [event.seq for event in ledger.events("run_started", after=1)] == [3]
    assert [event.seq for event in ledger.events(limit=2)] == [1, 2]
    assert ledger.last_seq() == 3
    event = ledger.event("candidate", "abc")
    assert event is not None
    assert (event.key, event.payload) == ("abc", {"block": "x = 1\n"})
    assert before <= event.time <= time.time()
    assert ledger.event("candidate", "other") is None


def test_any_text_survives(ledger: Ledger) -> None:
    reply = "\ud800 \x00 \u202eright to left\u202c </script> \N{GRINNING FACE} " + "x" * 1_000_000
    ledger.record("proposal", {"status": "unparsable", "reply": reply, "completion_tokens": None})
    (found,) = ledger.proposals()
    assert found.payload["reply"] == reply
    assert found.payload["completion_tokens"] is None
    assert ledger.integrity() == []


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"loss": float("nan")}, "note.loss is nan"),
        ({"a": [1, {"b": float("inf")}]}, r"note.a\[1\].b is inf"),
        ({"a": {1: 2}}, "key 1 of type int"),
        ({"a": {3, 4}}, "note.a is a set"),
        ([1], "note is a list"),
    ],
)
def test_what_is_not_plain_json_is_refused_with_its_path(ledger: Ledger, payload: Any, message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        ledger.record("note", payload)
    assert ledger.last_seq() == 0


def test_a_payload_that_holds_itself_is_refused(ledger: Ledger) -> None:
    knot: Json = {}
    knot["self"] = knot
    with pytest.raises(PayloadError, match="nests too deep"):
        ledger.record("note", knot)


@pytest.mark.parametrize(
    ("kind", "payload", "key", "message"),
    [
        ("propsal", {}, None, "did you mean 'proposal'"),
        ("proposal", {}, None, "needs status; got nothing"),
        ("proposal", {"status": "fine"}, None, "'fine' is not one of accepted, duplicate"),
        ("decision", {"what": "drop"}, None, "needs reason; got what"),
        ("candidate", {}, None, "needs a key"),
        ("run", {"spec": {}, "outcome": {}}, "", "needs a key"),
        ("note", {}, 3, "keys are strings"),
    ],
)
def test_events_no_projection_could_read_are_refused(
    ledger: Ledger, kind: str, payload: Json, key: Any, message: str
) -> None:
    with pytest.raises(PayloadError, match=message):
        ledger.record(kind, payload, key)
    assert ledger.last_seq() == 0


def test_several_events_are_all_or_none(ledger: Ledger) -> None:
    assert ledger.record_many([("note", {"n": 1}, None), ("candidate", {}, "a")]) == [1, 2]
    with pytest.raises(DuplicateEventError, match="key 'a' is already recorded"):
        ledger.record_many([("note", {"n": 2}, None), ("candidate", {}, "a")])
    assert [event.kind for event in ledger.events()] == ["note", "candidate"]
    assert ledger.record("note", {}) == 3


def test_what_is_recorded_once_stands(ledger: Ledger) -> None:
    assert ledger.record_once("fitness", {"candidate": "a", "value": 1.0}, "stage1:a")
    assert ledger.record_once("fitness", {"candidate": "b", "value": 2.0}, "stage1:b")
    assert not ledger.record_once("fitness", {"candidate": "a", "value": 3.0}, "stage1:a")
    assert [event.payload["value"] for event in ledger.events("fitness")] == [1.0, 2.0]


def test_a_run_is_recorded_once(ledger: Ledger, make_spec: Make, done: Json) -> None:
    ledger.commit_run("k1", make_spec(), done, cost_source="measured")
    with pytest.raises(DuplicateRunError, match="run k1 is already recorded"):
        ledger.commit_run("k1", make_spec(), {"status": "crashed", "error": "E", "detail": ""})
    with pytest.raises(DuplicateRunError):
        ledger.record("run", {"spec": make_spec(), "outcome": done}, key="k1")
    assert ledger.outcome("k1") == done
    assert ledger.outcome("k2") is None
    (run,) = ledger.runs()
    assert (run.key, run.spec, run.outcome, run.cost_source) == ("k1", make_spec(), done, "measured")
    assert run.val_loss == 3.5


def test_a_failure_has_no_loss(ledger: Ledger, make_spec: Make) -> None:
    ledger.commit_run("k", make_spec(), {"status": "diverged", "step": 3, "reason": "loss 1e9"})
    assert ledger.runs()[0].val_loss is None
    with pytest.raises(PayloadError, match="no status"):
        ledger.commit_run("k2", make_spec(), {"val_loss": 3.0})


def test_runs_are_narrowed(ledger: Ledger, make_spec: Make, done: Json) -> None:
    specs = [
        make_spec("a", 0),
        make_spec("a", 10_000, "tuning"),
        make_spec("b", 0, size="d48"),
        make_spec("b", 1, corpus_hash="other"),
    ]
    for number, spec in enumerate(specs):
        ledger.commit_run(str(number), spec, done)
    assert [run.key for run in ledger.runs()] == ["0", "1", "2", "3"]
    assert [run.key for run in ledger.runs(candidate="a")] == ["0", "1"]
    assert [run.key for run in ledger.runs(purpose="search")] == ["0", "2", "3"]
    assert [run.key for run in ledger.runs(candidate="b", size="d48")] == ["2"]
    assert [run.key for run in ledger.runs(corpus_hash="other")] == ["3"]


def test_runs_on_two_corpora_are_never_compared(ledger: Ledger, make_spec: Make, done: Json) -> None:
    ledger.commit_run("0", make_spec("a", 0), done)
    ledger.commit_run("1", make_spec("b", 0), done)
    assert [run.key for run in ledger.comparable_runs()] == ["0", "1"]
    ledger.commit_run("2", make_spec("b", 1, corpus_hash="decaf"), done)
    with pytest.raises(CorpusMismatchError, match=r"2 corpora are never compared: corpus c0ffee.*corpus decaf"):
        ledger.comparable_runs(purpose="search")
    assert [run.key for run in ledger.comparable_runs(corpus_hash="c0ffee")] == ["0", "1"]
    ledger.commit_run("3", make_spec("b", 2, tokenizer_hash="words"), done)
    with pytest.raises(CorpusMismatchError):
        ledger.comparable_runs(corpus_hash="c0ffee")
    assert require_one_corpus([]) is None


def test_a_transient_outcome_leaves_the_run_open(path: Path, make_spec: Make, done: Json) -> None:
    late = {"status": "timed_out", "limit_seconds": 5.0}
    with Ledger(path, transient={"timed_out"}) as ledger:
        for _ in range(2):
            ledger.commit_run("k", make_spec(), late)
        ledger.commit_run("k%", make_spec("b"), late)
        assert ledger.outcome("k") is None
        assert ledger.runs() == []
        assert [event.key for event in ledger.attempts("k")] == ["k:1", "k:2"]
        ledger.commit_run("k", make_spec(), done)
        assert ledger.outcome("k") == done
        with pytest.raises(DuplicateRunError):
            ledger.commit_run("k", make_spec(), late)
        assert ledger.integrity() == []


def test_by_default_a_timeout_is_final(ledger: Ledger, make_spec: Make, done: Json) -> None:
    ledger.commit_run("k", make_spec(), {"status": "timed_out", "limit_seconds": 5.0})
    with pytest.raises(DuplicateRunError):
        ledger.commit_run("k", make_spec(), done)


def test_models_are_recorded_as_they_are(ledger: Ledger) -> None:
    from training.outcome import Completed, outcome_from_json
    from training.run_spec import RunSpec

    size = {"size": "d32", "d_model": 32, "n_layers": 2, "n_heads": 2, "vocab_size": 512, "seq_len": 64}
    spec = RunSpec(
        **size,
        candidate="a",
        framework="matrix_mixer",
        batch_size=8,
        steps=200,
        learning_rate=1e-2,
        seed=3,
        purpose="search",
        eval_split="search_validation",
        eval_every=50,
        eval_tokens=4096,
        corpus_hash="c",
        tokenizer_hash="t",
    )
    outcome = Completed(
        val_loss=3.5,
        curve=[(50, 4.0, 4.1)],
        n_parameters=24_896,
        tokens=102_400,
        flops=10**12,
        cpu_seconds=1.4,
        seconds=1.5,
        peak_memory_bytes=10**8,
    )
    with pytest.raises(PayloadError, match="is not the key of the spec"):
        ledger.commit_run("other", spec, outcome)
    ledger.commit_run(spec.key, spec, outcome)
    (run,) = ledger.runs(candidate="a")
    assert RunSpec(**run.spec) == spec
    stored = ledger.outcome(spec.key)
    assert stored is not None
    assert outcome_from_json(stored) == outcome


def test_threads_write_side_by_side(ledger: Ledger, make_spec: Make, done: Json) -> None:
    failures: list[BaseException] = []

    def write(worker: int) -> None:
        try:
            for number in range(25):
                ledger.commit_run(f"{worker}-{number}", make_spec(str(worker), number), done)
                assert len(ledger.runs(candidate=str(worker))) == number + 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [event.seq for event in ledger.events()] == list(range(1, 101))
    assert ledger.integrity() == []


def test_of_threads_that_race_for_one_key_one_wins(ledger: Ledger, make_spec: Make, done: Json) -> None:
    refused: list[str] = []

    def write() -> None:
        try:
            ledger.commit_run("k", make_spec(), done)
        except DuplicateRunError:
            refused.append("once")

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 5
    assert len(ledger.runs()) == 1


def test_a_closed_ledger_says_so(path: Path) -> None:
    ledger = Ledger(path)
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="is closed"):
        ledger.record("note", {})


def test_lookups_stay_quick(path: Path, make_spec: Make, done: Json) -> None:
    """Plans of the three frequent queries use an index; a scan would grow with the run."""
    with Ledger(path) as ledger:
        ledger.record_many(
            ("run", {"spec": make_spec(str(n % 100), n // 100), "outcome": done}, f"k{n}") for n in range(2_000)
        )
        start = time.perf_counter()
        for number in range(50):
            assert ledger.outcome(f"k{number}") == done
            assert len(ledger.runs(candidate=str(number))) == 20
        assert time.perf_counter() - start < 2.0
        for query in (
            "kind = 'run' AND key = 'k1'",
            "kind = 'run' AND json_extract(payload, '$.spec.candidate') = '1' ORDER BY seq",
            "kind = 'run' AND json_extract(payload, '$.spec.purpose') = 'search' ORDER BY seq",
        ):
            steps = ledger._database.use(
                lambda connection, query=query: connection.execute(
                    f"EXPLAIN QUERY PLAN SELECT * FROM events WHERE {query}"
                ).fetchall()
            )
            assert "USING INDEX" in steps[0][3], steps

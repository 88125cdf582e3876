"""The dynamic guards against blocks whose verdict is known."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
import torch

from evolution.guards.registry import guards
from evolution.guards.report import GuardReport
from evolution.guards.subject import ProbedSize, Subject
from evolution.guards.worker import check, check_subject
from frameworks.attention.controls.registry import Control, controls
from frameworks.registry import framework, frameworks
from tests.evolution.guards.block_template import mixer_block
from tests.evolution.guards.cheat_blocks import CHEATS
from tests.evolution.guards.honest_blocks import HONEST

SIZES = [
    ProbedSize(d_model=d_model, n_heads=d_model // 16, n_layers=2, vocab_size=512, seq_len=64, batch_size=8)
    for d_model in (32, 48, 80)
]
SMALL = [ProbedSize(d_model=32, n_heads=2, n_layers=1, vocab_size=64, seq_len=64, batch_size=8)]
NEEDS_EVERY_SIZE = {"only with five heads"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def verdicts(block: str, sizes: list[ProbedSize], probe_seed: int = 1, name: str = "matrix_mixer") -> list[GuardReport]:
    return check_subject(Subject(name, framework(name).program(block).source, sizes, probe_seed))


@pytest.mark.parametrize("name", list(CHEATS))
def test_a_cheat_is_refused_by_the_guard_it_offends(name: str) -> None:
    block, expected = CHEATS[name]
    report = verdicts(block, SIZES if name in NEEDS_EVERY_SIZE else SMALL)[-1]
    assert not report.passed, report
    assert report.guard in expected, report
    json.dumps(report.to_json())


QUICK = list(HONEST)[::3]  # the others run in the slow test below


@pytest.mark.parametrize("name", QUICK)
def test_an_honest_block_passes_every_guard(name: str) -> None:
    reports = verdicts(HONEST[name], SMALL)
    assert reports[-1].passed, reports[-1]
    assert [report.guard for report in reports] == [guard.name for guard in guards("dynamic")]


@pytest.mark.slow
@pytest.mark.parametrize("probe_seed", [11, 12, 13])
def test_no_seed_changes_a_verdict_at_the_demo_sizes(probe_seed: int) -> None:
    for name, block in HONEST.items():
        report = verdicts(block, SIZES, probe_seed)[-1]
        assert report.passed, (name, report)
    for name, (block, expected) in CHEATS.items():
        report = verdicts(block, SIZES, probe_seed)[-1]
        assert not report.passed, (name, report)
        assert report.guard in expected, (name, report)


@pytest.mark.parametrize("name", list(frameworks()))
def test_shipped_blocks_pass_at_the_demo_sizes_within_a_second_or_so(name: str) -> None:
    subject = Subject(name, framework(name).pristine, SIZES, 5)
    check_subject(Subject(name, framework(name).pristine, SIZES[:1], 5))  # first calls load kernels
    started = time.process_time()
    reports = check_subject(subject)
    assert reports[-1].passed, reports[-1]
    assert time.process_time() - started < 3.0  # about 0.8 on an idle core


CONTROLS = [
    pytest.param(entry, id=entry.name, marks=() if entry.kind == "cheat" else pytest.mark.slow) for entry in controls()
]


@pytest.mark.parametrize("entry", CONTROLS)
def test_controls_get_their_verdict(entry: Control) -> None:
    report = check_subject(Subject(entry.framework, entry.program().source, SIZES[:1], 3))[-1]
    assert report.passed == (entry.kind != "cheat"), report


def test_the_same_seed_gives_the_same_evidence_and_another_seed_other_probes() -> None:
    block = CHEATS["no mask"][0]
    first, second, other = (verdicts(block, SIZES[:1], seed)[-1] for seed in (1, 1, 2))
    assert first.evidence == second.evidence
    assert first.evidence != other.evidence


def test_evidence_names_positions_length_mode_and_size_of_the_leak() -> None:
    report = verdicts(CHEATS["attention to the next position with weight 1e-6"][0], SIZES[:1])[-1]
    evidence = report.evidence
    assert evidence["from_position"] == evidence["to_position"] + 1
    assert evidence["length"] == 64
    assert evidence["mode"] == "train"
    assert 1e-7 < evidence["leak"] < 1e-4
    assert f"position {evidence['to_position']}" in report.reason


def test_probing_leaves_the_process_as_it_was() -> None:
    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    verdicts(HONEST["rotary positions"], SIZES[:1])
    verdicts(CHEATS["noise"][0], SIZES[:1])
    assert torch.get_default_dtype() == dtype
    assert torch.is_grad_enabled()
    # The noisy candidate draws from the global state itself; an honest one and the guards do not.
    before = torch.get_rng_state()
    verdicts(HONEST["rotary positions"], SIZES[:1])
    assert torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(state)


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("raise SystemExit(3)", "SystemExit"),
        ("x = (", "SyntaxError"),
        ("x = 1", "EvolvableMatrixMixer"),
    ],
)
def test_a_candidate_that_breaks_at_import_is_a_failed_report(source: str, word: str) -> None:
    marked = f"# EVOLVE-BLOCK-START\n{source}\n# EVOLVE-BLOCK-END\n"
    report = check_subject(Subject("matrix_mixer", marked, SIZES[:1], 0))[-1]
    assert (report.guard, report.passed) == ("build", False)
    assert word in report.reason


def test_an_error_names_the_line_of_the_block() -> None:
    block = mixer_block("return v + missing_rows(v)").replace("missing_rows(v)", "v[:, :, :3]")
    report = verdicts(block, SIZES[:1])[-1]
    line = next(number for number, row in enumerate(block.splitlines(), 1) if "v[:, :, :3]" in row)
    assert f"line {line} of the block" in report.reason


def test_the_worker_speaks_json() -> None:
    arguments = {
        "framework": "matrix_mixer",
        "source": framework("matrix_mixer").program(CHEATS["no mask"][0]).source,
        "sizes": [{"d_model": 16, "n_heads": 1, "n_layers": 1, "vocab_size": 32, "seq_len": 16, "batch_size": 2}],
        "probe_seed": 2**31 - 1,
    }
    rows = check(json.loads(json.dumps(arguments)))
    assert rows == json.loads(json.dumps(rows))
    assert [row["passed"] for row in rows] == [True] * (len(rows) - 1) + [False]
    with pytest.raises(ValueError, match="sizes is empty"):
        check({**arguments, "sizes": []})


@pytest.mark.parametrize("seq_len", [2, 3, 16, 100])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_other_shapes_get_the_same_verdicts(seq_len: int, batch_size: int) -> None:
    sizes = [
        ProbedSize(d_model=24, n_heads=2, n_layers=1, vocab_size=11, seq_len=seq_len, batch_size=batch_size),
    ]
    assert verdicts(HONEST["softmax attention"], sizes)[-1].passed
    report = verdicts(CHEATS["behind a zero gate"][0], sizes)[-1]
    assert not report.passed
    assert report.guard in {"causality", "jacobian", "model_causality"}


def test_parity_counts_at_every_size() -> None:
    block = mixer_block("return v * self.gain", "self.gain = nn.Parameter(torch.ones(n_heads, 1, head_dim))")
    small = verdicts(block, SIZES[:1])[1]
    assert (small.guard, small.passed) == ("parity", True)
    assert small.evidence["sizes"][0]["parameters"] - small.evidence["sizes"][0]["reference"] == 2 * 32
    block = mixer_block("return v * self.gain.mean(0)", "self.gain = nn.Parameter(torch.ones(9, n_heads, 1, head_dim))")
    report = verdicts(block, SIZES)[-1]
    assert (report.guard, report.passed) == ("parity", False)
    assert "248 parameters for the block" in report.reason


def test_autocast_decides_only_where_runs_use_it() -> None:
    source = framework("matrix_mixer").program(HONEST["delta rule by a triangular solve"]).source
    passing = check_subject(Subject("matrix_mixer", source, SIZES[:1], 1))
    assert passing[-1].passed
    forward = next(report for report in passing if report.guard == "forward")
    assert "BFloat16" in forward.evidence["autocast"]
    refused = check_subject(Subject("matrix_mixer", source, SIZES[:1], 1, precision="bf16"))[-1]
    assert (refused.guard, refused.passed) == ("forward", False)

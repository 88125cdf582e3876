"""One run is a pure function of its spec: to the last bit, however it is interrupted."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from data.batches import evaluation_windows
from data.corpus import Corpus
from frameworks.attention.shell import AttentionShell
from models.language_model import attention_class
from training.checkpoint import CheckpointError, CheckpointWarning
from training.fused_loss import naive_linear_cross_entropy
from training.outcome import Completed, Diverged, outcome_from_json
from training.run_files import HISTORY
from training.run_spec import RunSpec
from training.trainer import CHECK_EVERY, Interrupted, Progress, Trainer

MakeSpec = Callable[..., RunSpec]
STANDARD = attention_class("matrix_mixer")


class _Noisy(AttentionShell):
    """Draws random numbers in the forward and moves a buffer: state that a resume must carry."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__(d_model, n_heads)
        self.mixer = nn.Linear(self.head_dim, self.head_dim)
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.seen: Tensor

    def mix(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
        dropped = nn.functional.dropout(v, 0.1, training=self.training)
        return self.mixer(dropped) * (1 + 0.01 * torch.tanh(self.seen))  # type: ignore[no-any-return]


def _run(spec: RunSpec, corpus: Corpus, attention: type[nn.Module] = STANDARD, **settings: Any) -> tuple[Any, Trainer]:
    trainer = Trainer(spec, corpus, attention, **settings)
    return trainer.run(), trainer


def _stop_after(step: int) -> Callable[[], bool]:
    calls = iter(range(1, step + 1))
    return lambda: next(calls, step) == step


def test_it_learns(corpus: Corpus, make_spec: MakeSpec) -> None:
    outcome, _ = _run(make_spec(steps=200, eval_every=100, eval_tokens=2048), corpus)
    assert isinstance(outcome, Completed)
    assert outcome.val_loss < 0.8 * math.log(300)


@pytest.mark.parametrize("attention", [STANDARD, _Noisy])
def test_same_spec_same_losses_to_the_last_bit_also_after_other_work(
    corpus: Corpus, make_spec: MakeSpec, attention: type[nn.Module]
) -> None:
    _, first = _run(make_spec(), corpus, attention)
    torch.rand(1000)
    np.random.default_rng(0).random(10)
    _run(make_spec(d_model=24, seed=9, seq_len=13), corpus, _Noisy)
    torch.randn(33, 77) @ torch.randn(77, 5)
    _, second = _run(make_spec(), corpus, attention)
    assert len(first.losses) == 30
    assert first.losses == second.losses
    assert first.curve == second.curve
    _, other = _run(make_spec(seed=4), corpus, attention)
    assert first.losses != other.losses


def test_the_global_random_states_are_left_alone(corpus: Corpus, make_spec: MakeSpec) -> None:
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    _run(make_spec(), corpus, _Noisy)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert random.getstate() == python_state


@pytest.mark.parametrize("attention", [STANDARD, _Noisy])
@pytest.mark.parametrize("stops", [(1,), (7,), (10,), (19, 20), (29,), (1, 2, 3, 15, 28)])
def test_stopped_and_resumed_is_uninterrupted(
    corpus: Corpus, make_spec: MakeSpec, tmp_path: Path, attention: type[nn.Module], stops: tuple[int, ...]
) -> None:
    spec = make_spec(weight_decay=0.1)
    whole, reference = _run(spec, corpus, attention)
    done = 0
    for stop in stops:
        with pytest.raises(Interrupted) as stopped:
            _run(spec, corpus, attention, checkpoint_dir=tmp_path, should_stop=_stop_after(stop - done))
        assert stopped.value.step == stop
        done = stop
    outcome, resumed = _run(spec, corpus, attention, checkpoint_dir=tmp_path)
    assert resumed.losses == reference.losses
    assert outcome.curve == whole.curve
    assert outcome.val_loss == whole.val_loss
    for one, other in zip(resumed.model.parameters(), reference.model.parameters(), strict=True):
        assert torch.equal(one, other)


def _die(trainer: Trainer, after_seconds: float) -> int:
    """Run in a forked process that is killed without warning: its exit code, or minus the signal."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, after_seconds)
        try:
            trainer.run()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_killed_at_any_moment_and_resumed_is_uninterrupted(corpus: Corpus, make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec(steps=120, eval_every=40)
    whole, reference = _run(spec, corpus)
    deaths = 0
    for attempt in range(6):
        trainer = Trainer(spec, corpus, STANDARD, checkpoint_dir=tmp_path, checkpoint_every=1)
        code = _die(trainer, whole.seconds * (0.3 + 0.1 * attempt))
        assert code in (0, -signal.SIGALRM)
        deaths += code != 0
    assert deaths > 0
    assert list(tmp_path.glob("step_*.ckpt"))
    outcome, resumed = _run(spec, corpus, checkpoint_dir=tmp_path)
    assert resumed.losses == reference.losses
    assert outcome.curve == whole.curve


def test_another_process_gets_the_same_losses(corpus: Corpus, make_spec: MakeSpec) -> None:
    code = """if True:
        import sys, torch
        torch.set_num_threads(1)
        from data.corpus import open_corpus
        from models.language_model import attention_class
        from training.run_spec import RunSpec
        from training.trainer import Trainer
        spec = RunSpec.model_validate_json(sys.argv[1])
        trainer = Trainer(spec, open_corpus(sys.argv[2]), attention_class("matrix_mixer"))
        trainer.run()
        print(trainer.losses)
    """
    command = [sys.executable, "-c", code, make_spec().canonical_json(), str(corpus.directory)]
    elsewhere = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(elsewhere) == _run(make_spec(), corpus)[1].losses


def test_a_finished_run_is_answered_from_its_checkpoint(corpus: Corpus, make_spec: MakeSpec, tmp_path: Path) -> None:
    first, _ = _run(make_spec(), corpus, checkpoint_dir=tmp_path)
    reports: list[Progress] = []
    second, _ = _run(make_spec(), corpus, checkpoint_dir=tmp_path, progress=reports.append)
    assert reports == []
    assert (second.val_loss, second.curve, second.flops) == (first.val_loss, first.curve, first.flops)
    assert second.seconds >= first.seconds - 0.5


def test_a_truncated_checkpoint_costs_only_the_steps_since_the_one_before(
    corpus: Corpus, make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec()
    _, reference = _run(spec, corpus)
    with pytest.raises(Interrupted):
        _run(spec, corpus, checkpoint_dir=tmp_path, checkpoint_every=5, should_stop=_stop_after(17))
    newest = tmp_path / "step_00000017.ckpt"
    os.truncate(newest, newest.stat().st_size // 2)
    with pytest.warns(CheckpointWarning, match=r"step_00000017\.ckpt .* truncated or altered.*step_00000015\.ckpt"):
        _, resumed = _run(spec, corpus, checkpoint_dir=tmp_path)
    assert resumed.losses == reference.losses


def test_with_every_checkpoint_corrupt_the_run_starts_afresh(
    corpus: Corpus, make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec()
    first, reference = _run(spec, corpus, checkpoint_dir=tmp_path)
    for path in tmp_path.glob("*.ckpt"):
        path.write_bytes(b"rubbish")
    with pytest.warns(CheckpointWarning) as told:
        second, again = _run(spec, corpus, checkpoint_dir=tmp_path)
    assert str(told[-1].message).endswith("; starting afresh")
    assert again.losses == reference.losses
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _run(spec, corpus, checkpoint_dir=tmp_path)
    assert second.curve == first.curve


def test_the_checkpoint_of_another_run_is_not_continued(corpus: Corpus, make_spec: MakeSpec, tmp_path: Path) -> None:
    _run(make_spec(), corpus, checkpoint_dir=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(
        CheckpointError, match=r"another run, with learning_rate 0\.01 \(now 0\.02\); use another directory"
    ):
        _run(make_spec(learning_rate=2e-2), corpus, checkpoint_dir=tmp_path)
    with pytest.raises(CheckpointError, match=r"differ in the tensors blocks\.0\.attention\.mixer"):
        _run(make_spec(), corpus, _Noisy, checkpoint_dir=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_no_directory_no_files(
    corpus: Corpus, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _run(make_spec(), corpus)
    assert list(tmp_path.iterdir()) == []


def test_history_is_json_with_the_curve_and_the_outcome(corpus: Corpus, make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec()
    with pytest.raises(Interrupted):
        _run(spec, corpus, checkpoint_dir=tmp_path, should_stop=_stop_after(25))
    partial = json.loads((tmp_path / HISTORY).read_text())
    assert [row["step"] for row in partial["curve"]] == [10, 20]
    assert partial["outcome"] is None
    outcome, _ = _run(spec, corpus, checkpoint_dir=tmp_path)
    history = json.loads((tmp_path / HISTORY).read_text())
    assert RunSpec.model_validate(history["spec"]).key == history["key"] == spec.key
    assert outcome_from_json(history["outcome"]) == outcome
    assert [tuple(row.values()) for row in history["curve"]] == outcome.curve


def test_curve_holds_mean_training_loss_and_validation_loss(corpus: Corpus, make_spec: MakeSpec) -> None:
    spec = make_spec(steps=25)
    outcome, trainer = _run(spec, corpus)
    assert [step for step, _, _ in outcome.curve] == [10, 20, 25]
    assert outcome.curve[1][1] == pytest.approx(sum(trainer.losses[10:20]) / 10, abs=1e-12)
    x, y = evaluation_windows(corpus.tokens("search_validation"), seq_len=16, max_tokens=320)
    model = trainer.model
    with torch.no_grad():
        expected = naive_linear_cross_entropy(model.hidden(x), model.embedding.weight, y).item()
    assert outcome.val_loss == outcome.curve[-1][2] == pytest.approx(expected, rel=1e-5)


def test_confirmation_is_evaluated_on_its_own_split(corpus: Corpus, make_spec: MakeSpec) -> None:
    spec = make_spec(purpose="confirmation", seed=20_003, eval_split="confirmation_test")
    outcome, trainer = _run(spec, corpus)
    x, y = evaluation_windows(corpus.tokens("confirmation_test"), seq_len=16, max_tokens=320)
    with torch.no_grad():
        expected = naive_linear_cross_entropy(trainer.model.hidden(x), trainer.model.embedding.weight, y).item()
    assert outcome.val_loss == pytest.approx(expected, rel=1e-5)


def test_completed_counts(corpus: Corpus, make_spec: MakeSpec) -> None:
    outcome, trainer = _run(make_spec(), corpus)
    assert outcome.n_parameters == 2 * (12 * 16**2 + 4 * 16) + 2 * 16
    assert outcome.tokens == 30 * 4 * 16
    assert outcome.flops == 30 * 4 * 3 * (2 * (2 * 16 * 12 * 16**2 + 4 * 16**2 * 16) + 2 * 16 * 16 * 300)
    assert 0 < outcome.cpu_seconds < 60
    assert 0 < outcome.seconds < 60
    assert outcome.peak_memory_bytes > 50e6
    assert trainer.step == 30


class _Breaks(AttentionShell):
    """Standard until the forward number `at`, then multiplied by `factor`."""

    at = 12
    factor = float("nan")

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__(d_model, n_heads)
        self.calls = 0

    def mix(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.calls += self.training
        return v * self.factor if self.calls > self.at else v


class _Infinite(_Breaks):
    factor = float("inf")


@pytest.mark.parametrize("attention", [_Breaks, _Infinite])
def test_a_loss_that_is_not_finite_stops_within_twenty_steps(
    corpus: Corpus, make_spec: MakeSpec, tmp_path: Path, attention: type[nn.Module]
) -> None:
    spec = make_spec(steps=1000, eval_every=500)
    outcome, trainer = _run(spec, corpus, attention, checkpoint_dir=tmp_path, checkpoint_every=10)
    assert isinstance(outcome, Diverged)
    assert outcome.step == 12
    assert "nan" in outcome.reason
    assert 12 < trainer.step <= 12 + CHECK_EVERY
    # The broken weights never became a checkpoint.
    assert [path.name for path in tmp_path.glob("step_*")] == ["step_00000010.ckpt"]
    assert json.loads((tmp_path / HISTORY).read_text())["outcome"]["status"] == "diverged"


def test_a_loss_above_twice_the_logarithm_of_the_vocabulary_diverges_after_warm_up(
    corpus: Corpus, make_spec: MakeSpec
) -> None:
    spec = make_spec(steps=1000, eval_every=500, learning_rate=1.0, warmup_fraction=0.01)
    outcome, trainer = _run(spec, corpus)
    assert isinstance(outcome, Diverged)
    assert "above 2 ln V = 11.41" in outcome.reason
    assert spec.warmup_steps <= outcome.step < trainer.step <= outcome.step + CHECK_EVERY


def test_a_high_loss_during_warm_up_is_borne(corpus: Corpus, make_spec: MakeSpec) -> None:
    class Loud(AttentionShell):
        def mix(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return v * 100

    with torch.no_grad():
        outcome, trainer = _run(make_spec(steps=20, warmup_fraction=1.0, learning_rate=1e-4), corpus, Loud)
    assert isinstance(outcome, Completed), outcome
    assert len(trainer.losses) == 20


class _Reads(TorchDispatchMode):
    """Counts the tensors that are read back as Python numbers."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_nothing_is_read_back_from_the_device_in_a_step(corpus: Corpus, make_spec: MakeSpec) -> None:
    with _Reads() as reads:
        torch.zeros(()).item()
        _run(make_spec(steps=60, eval_every=30), corpus)
    assert reads.count == 1 + 2  # the one above, one for each evaluation


def test_progress_reports(corpus: Corpus, make_spec: MakeSpec) -> None:
    reports: list[Progress] = []
    _, trainer = _run(make_spec(steps=50, eval_every=50), corpus, progress=reports.append)
    assert [report.step for report in reports] == [20, 40, 50]
    assert reports[0].val_loss is None
    assert reports[-1].val_loss == trainer.curve[-1][2]
    assert reports[0].loss == pytest.approx(sum(trainer.losses[:20]) / 20)
    assert all(report.tokens_per_second > 0 and report.steps == 50 for report in reports)
    assert reports[-1].learning_rate == pytest.approx(1e-3)


def test_runs_on_different_corpora_are_an_error(corpus: Corpus, make_spec: MakeSpec) -> None:
    for name, value in (("corpus_hash", "x"), ("tokenizer_hash", "y"), ("vocab_size", 299)):
        with pytest.raises(ValueError, match=f"{name} is {value} .* never compared"):
            Trainer(make_spec(**{name: value}), corpus, STANDARD)


def test_settings_that_cannot_be_met(corpus: Corpus, make_spec: MakeSpec) -> None:
    with pytest.raises(ValueError, match="checkpoint_every=0"):
        Trainer(make_spec(), corpus, STANDARD, checkpoint_every=0)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device is available"):
            Trainer(make_spec(device_kind="cuda"), corpus, STANDARD)


def test_bf16_on_request(corpus: Corpus, make_spec: MakeSpec) -> None:
    exact, _ = _run(make_spec(steps=10), corpus)
    half, trainer = _run(make_spec(steps=10, precision="bf16"), corpus)
    assert isinstance(half, Completed)
    assert 0 < abs(half.val_loss - exact.val_loss) < 0.1
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())


def test_what_the_candidate_raises_passes_through(corpus: Corpus, make_spec: MakeSpec) -> None:
    class Raises(AttentionShell):
        def mix(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        _run(make_spec(), corpus, Raises)

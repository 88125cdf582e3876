"""Whatever a candidate does ends in an outcome."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data.corpus import Corpus
from frameworks.registry import framework
from models.language_model import attention_class
from training.outcome import Completed, Crashed, OutOfMemory, outcome_from_json
from training.run_spec import RunSpec
from training.trainer import Trainer
from training.worker import measure, train

MakeSpec = Callable[..., RunSpec]
Measure = Callable[..., Any]


@pytest.fixture
def measured(corpus: Corpus, make_spec: MakeSpec) -> Measure:
    """Measure the matrix mixer with one line of its block replaced."""

    def run(line: str | None = None, place: str = "return q, k, v", **arguments: Any) -> Any:
        source = None if line is None else framework("matrix_mixer").pristine.replace(place, line)
        value = {
            "spec": make_spec(candidate="x").model_dump(mode="json"),
            "source": source,
            "corpus_dir": str(corpus.directory),
            "checkpoint_dir": None,
            **arguments,
        }
        result = measure(value)
        assert json.loads(json.dumps(result, allow_nan=False)) == result
        return outcome_from_json(result)

    return run


def test_a_candidate_is_measured_as_the_trainer_measures_it(
    corpus: Corpus, make_spec: MakeSpec, measured: Measure
) -> None:
    outcome = measured("return q, k, 2 * v")
    assert isinstance(outcome, Completed)
    source = framework("matrix_mixer").pristine.replace("return q, k, v", "return q, k, 2 * v")
    expected = Trainer(make_spec(candidate="x"), corpus, attention_class("matrix_mixer", "evolved", source)).run()
    assert outcome.curve == expected.curve  # type: ignore[union-attr]


@pytest.mark.parametrize("candidate", ["standard", "evolvable"])
def test_without_source_the_frameworks_own_class(
    corpus: Corpus, make_spec: MakeSpec, measured: Measure, candidate: str
) -> None:
    spec = make_spec(candidate=candidate)
    outcome = measured(spec=spec.model_dump(mode="json"))
    expected = Trainer(spec, corpus, attention_class("matrix_mixer", candidate)).run()
    assert outcome.curve == expected.curve  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("raise ValueError('no good')", "ValueError: no good"),
        ("return q, k, v @ v", "RuntimeError: "),
        ("return undefined", "NameError: name 'undefined' is not defined"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise OSError(28, 'No space left on device')", "OSError: "),
        ("return self.signals(x, q, k, v)", "RecursionError: "),
        ("raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})()", "Odd: (its message cannot be printed)"),
        ("raise ValueError(chr(0xD800))", "ValueError: \\ud800"),
    ],
)
def test_every_exception_is_a_crash_with_the_candidates_own_lines(measured: Measure, line: str, error: str) -> None:
    outcome = measured(line)
    assert isinstance(outcome, Crashed)
    assert outcome.error.startswith(error)
    assert "in signals" in outcome.detail
    assert line.split("(")[0] in outcome.detail
    assert "trainer.py" not in outcome.detail
    assert len(outcome.detail) <= 2000


@pytest.mark.parametrize(
    ("place", "line", "error"),
    [
        ("self.n_heads = n_heads", "self.n_heads = n_heads / 0", "ZeroDivisionError"),
        ("class Mixer(nn.Module):", "class Mixer(nn.Modul):", "AttributeError"),
        ("class Mixer(nn.Module):", "class Mixer(nn.Module)", "SyntaxError"),
        ("return self.output(x, v, y)", "return y[..., :1]", "RuntimeError"),
        ("return self.output(x, v, y)", "return y.detach().numpy()", "ValueError"),
        ("return self.output(x, v, y)", "return y.double()", "RuntimeError"),
    ],
)
def test_crashes_outside_the_forward_of_the_block(measured: Measure, place: str, line: str, error: str) -> None:
    outcome = measured(line, place)
    assert isinstance(outcome, Crashed)
    assert outcome.error.startswith(error)


def test_a_long_message_is_cut(measured: Measure) -> None:
    outcome = measured("raise ValueError('x' * 100_000)")
    assert len(outcome.error) < 3_000


@pytest.mark.parametrize(
    "line", ["raise MemoryError", "return q, k, torch.empty(2**55)", "raise RuntimeError('CUDA out of memory')"]
)
def test_running_out_of_memory_is_its_own_outcome(measured: Measure, line: str) -> None:
    assert isinstance(measured(line), OutOfMemory)


def test_a_candidate_that_returns_nothing_finite_diverges(measured: Measure) -> None:
    outcome = measured("return q, k, v / 0")
    assert outcome.status == "diverged"


def test_a_program_without_the_class_is_a_crash(measured: Measure) -> None:
    outcome = measured("class Other(", "class EvolvableMatrixMixer(")
    assert isinstance(outcome, Crashed)
    assert "does not define the class EvolvableMatrixMixer" in outcome.error


def test_checkpoints_where_asked_and_nothing_else(measured: Measure, tmp_path: Path) -> None:
    first = measured("return q, k, v", checkpoint_dir=str(tmp_path / "run"))
    assert list((tmp_path / "run").glob("step_*.ckpt"))
    second = measured("return q, k, v", checkpoint_dir=str(tmp_path / "run"))
    assert second.curve == first.curve


def test_faults_that_are_not_the_candidates_are_raised(
    corpus: Corpus, make_spec: MakeSpec, measured: Measure, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match="unknown arguments corpus; missing arguments corpus_dir; allowed: spec, source"
    ):
        measure({"spec": make_spec().model_dump(mode="json"), "corpus": str(corpus.directory)})
    with pytest.raises(ValueError, match="learning_rate"):
        measured(spec={**make_spec().model_dump(mode="json"), "learning_rate": -1})
    with pytest.raises(ValueError, match="never compared"):
        measured(spec=make_spec(corpus_hash="other").model_dump(mode="json"))
    with pytest.raises(ValueError):
        measured(corpus_dir=str(tmp_path))
    occupied = tmp_path / "file"
    occupied.write_text("x")
    with pytest.raises(OSError):
        measured(checkpoint_dir=str(occupied))
    measured(checkpoint_dir=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"another run, with .*seed 3"):
        measured(spec=make_spec(seed=4).model_dump(mode="json"), checkpoint_dir=str(tmp_path / "run"))


def test_one_thread_on_cpu(measured: Measure) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        measured()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_train_also_gives_the_model(corpus: Corpus, make_spec: MakeSpec) -> None:
    spec = make_spec(steps=5)
    outcome, model = train({"spec": spec.model_dump(mode="json"), "corpus_dir": str(corpus.directory)})
    assert outcome.status == "completed"
    assert model is not None
    assert model.n_parameters() == outcome.n_parameters  # type: ignore[union-attr]

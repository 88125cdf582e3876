"""A compiled run gives the eager run's losses to rounding."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from data.corpus import Corpus
from models.language_model import attention_class
from training.outcome import Completed
from training.run_spec import RunSpec
from training.trainer import Trainer


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_losses_are_the_eager_ones_to_rounding(corpus: Corpus, make_spec: Callable[..., RunSpec]) -> None:
    attention = attention_class("coefficient_dynamics", "evolvable")
    curves = []
    for execution in ("eager", "compiled"):
        spec = make_spec(n_layers=1, steps=10, eval_every=5, execution=execution)
        outcome = Trainer(spec, corpus, attention).run()
        assert isinstance(outcome, Completed)
        curves.append([value for point in outcome.curve for value in point])
    assert curves[0] == pytest.approx(curves[1], abs=2e-4)

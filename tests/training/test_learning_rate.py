from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from training.learning_rate import learning_rate
from training.run_spec import RunSpec

MakeSpec = Callable[..., RunSpec]


def test_warm_up_is_linear_and_ends_at_the_peak(make_spec: MakeSpec) -> None:
    spec = make_spec(steps=100, learning_rate=0.5, warmup_fraction=0.1)
    assert [learning_rate(spec, step) for step in range(10)] == pytest.approx([0.05 * (n + 1) for n in range(10)])


def test_cosine_falls_without_a_jump_to_its_final_fraction(make_spec: MakeSpec) -> None:
    spec = make_spec(steps=100, learning_rate=1.0, warmup_fraction=0.1, final_lr_fraction=0.2)
    rates = [learning_rate(spec, step) for step in range(9, 100)]
    assert rates[0] == 1.0
    assert all(later < earlier for earlier, later in pairwise(rates))
    assert max(earlier - later for earlier, later in pairwise(rates)) < 0.02
    assert rates[-1] == pytest.approx(0.2)
    assert rates[45] == pytest.approx(0.6)  # half way down


def test_constant_stays(make_spec: MakeSpec) -> None:
    spec = make_spec(steps=100, learning_rate=0.3, schedule="constant", warmup_fraction=0.05)
    assert {learning_rate(spec, step) for step in range(5, 100)} == {0.3}


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_no_warm_up_and_nothing_but_warm_up(make_spec: MakeSpec, fraction: float) -> None:
    spec = make_spec(steps=10, learning_rate=1.0, warmup_fraction=fraction)
    rates = [learning_rate(spec, step) for step in range(10)]
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[-1] == pytest.approx(1.0 if fraction else spec.final_lr_fraction)

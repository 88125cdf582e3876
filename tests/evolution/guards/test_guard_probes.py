"""The parts that the dynamic guards are made of."""

from __future__ import annotations

import pytest
import torch

from evolution.guards.inputs import KINDS, sequence_inputs
from evolution.guards.parameter_states import STATES, move_parameters, pull_back
from evolution.guards.precision import double_precision, names_narrow_dtype
from evolution.guards.prefix import change_suffix, prefix_leak, truncation_leak
from evolution.guards.rounding import FLOAT64, leak_size
from evolution.guards.subject import ProbedSize, Subject
from frameworks.registry import framework
from tests.evolution.guards.honest_blocks import HONEST

SIZE = ProbedSize(d_model=16, n_heads=1, n_layers=1, vocab_size=32, seq_len=16, batch_size=2)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_are_finite_reproducible_and_of_the_kind_they_say(kind: str) -> None:
    x = sequence_inputs(kind, 3, 20, 12, generator())
    assert x.shape == (3, 20, 12)
    assert x.dtype == torch.float64
    assert torch.isfinite(x).all()
    assert torch.equal(x, sequence_inputs(kind, 3, 20, 12, generator()))
    if kind == "normalised":
        assert torch.allclose(x.mean(-1), torch.zeros(3, 20, dtype=torch.float64), atol=1e-12)
    if kind == "whole":
        assert torch.equal(x, x.round())
    if kind == "repeated":
        assert torch.unique(sequence_inputs(kind, 1, 20, 12, generator())[0, :, -1].round(decimals=1)).numel() <= 6


def test_unknown_kinds_and_states_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match="normalised"):
        sequence_inputs("odd", 1, 2, 3, generator())
    subject = Subject("matrix_mixer", framework("matrix_mixer").pristine, [SIZE], 0)
    with pytest.raises(ValueError, match="flipped"):
        move_parameters(subject.layer(SIZE), "odd", generator())


@pytest.mark.parametrize("state", STATES)
def test_states_move_the_block_and_pull_back_returns_it(state: str) -> None:
    source = framework("matrix_mixer").program(HONEST["gated decay from the input"]).source
    subject = Subject("matrix_mixer", source, [SIZE], 0)
    layer, start = subject.layer(SIZE), subject.layer(SIZE)
    assert torch.equal(layer.mixer.to_decay.weight, start.mixer.to_decay.weight)
    move_parameters(layer, state, generator(1))
    moved = (layer.mixer.to_decay.weight - start.mixer.to_decay.weight).abs().max()
    assert (moved == 0) == (state == "init")
    if state in ("positive", "negative"):
        assert (layer.mixer.to_decay.weight.sign() == (1 if state == "positive" else -1)).all()
    pull_back(layer, start, 0.0)
    assert torch.equal(layer.mixer.to_decay.weight, start.mixer.to_decay.weight)


def test_double_precision_widens_what_a_block_names_and_restores_the_default() -> None:
    x = torch.ones(3, dtype=torch.float64)
    with double_precision():
        assert x.float().dtype == torch.float64
        assert x.to(torch.float32).dtype == torch.float64
        assert x.to(dtype=torch.bfloat16).dtype == torch.float64
        assert torch.zeros(2).dtype == torch.float64
        assert torch.arange(3, dtype=torch.float32).dtype == torch.float64
        assert torch.zeros(2, dtype=torch.complex64).dtype == torch.complex128
        assert torch.ones(2, dtype=torch.int64).dtype == torch.int64
        assert (x > 0).dtype == torch.bool
    assert torch.zeros(2).dtype == torch.float32
    assert x.float().dtype == torch.float32


def test_double_precision_restores_the_default_after_an_error() -> None:
    with pytest.raises(KeyError), double_precision():
        raise KeyError("x")
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x.float()", True),
        ("dtype=torch.float32", True),
        ("x.half()", True),
        ('float("-inf")', False),
        ("x + y", False),
    ],
)
def test_texts_that_need_widening_are_recognised(text: str, expected: bool) -> None:
    assert names_narrow_dtype(text) is expected


def test_change_suffix_keeps_each_row_up_to_its_cut() -> None:
    x, other = torch.zeros(2, 4, 3), torch.ones(2, 4, 3)
    changed = change_suffix(x, other, [0, 2])
    assert changed[..., 0].tolist() == [[0, 1, 1, 1], [0, 0, 0, 1]]
    assert change_suffix(torch.zeros(2, 4), torch.ones(2, 4), [3, 1]).tolist() == [[0, 0, 0, 0], [0, 0, 1, 1]]


def running_mean(x: torch.Tensor) -> torch.Tensor:
    return x.cumsum(1) / torch.arange(1, x.shape[1] + 1, dtype=x.dtype).view(1, -1, 1)


def test_prefix_leak_measures_size_and_place() -> None:
    x = torch.randn(2, 10, 3, generator=generator(), dtype=torch.float64)
    changed = change_suffix(x, x + 1, [4, 6])

    def leaky(rows: torch.Tensor) -> torch.Tensor:
        y = running_mean(rows).clone()
        y[:, 3] += 1e-7 * rows[:, 8]
        return y

    assert prefix_leak(running_mean, x, changed, [4, 6], FLOAT64, generator(), []) is None
    leak = prefix_leak(leaky, x, changed, [4, 6], FLOAT64, generator(), [])
    assert leak is not None
    assert (leak.to_position, leak.from_position) == (3, 8)
    assert leak.leak == pytest.approx(1e-7 / float(leaky(x).abs().max()), rel=1e-4)


def test_truncation_leak_sees_the_length() -> None:
    x = torch.randn(2, 10, 3, generator=generator(), dtype=torch.float64)
    assert truncation_leak(running_mean, x, 4, FLOAT64, generator(), []) is None
    leak = truncation_leak(lambda rows: rows * rows.shape[1], x, 4, FLOAT64, generator(), [])
    assert leak is not None
    assert leak.after == 4


def test_a_tail_that_overflows_by_itself_is_no_leak_but_a_prefix_that_does_is() -> None:
    x = torch.ones(1, 6, 1, dtype=torch.float64)
    changed = change_suffix(x, 1e200 * x, [2])

    def masked(rows: torch.Tensor) -> torch.Tensor:
        weights = torch.ones(6, 6, dtype=torch.float64).tril()
        return weights @ (rows * rows * rows)  # infinite tail times a zero weight is not a number

    def prefix_only(rows: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.arange(6).view(1, -1, 1) == 1, rows.sum() ** 2, rows)

    assert prefix_leak(masked, x, changed, [2], FLOAT64, generator(), []) is None
    leak = prefix_leak(prefix_only, x, changed, [2], FLOAT64, generator(), [])
    assert leak is not None
    assert leak.to_position == 1


def test_a_difference_within_the_noise_floor_is_rounding() -> None:
    difference = torch.tensor([1e-8], dtype=torch.float64)
    floor = torch.tensor([1e-9], dtype=torch.float64)
    assert leak_size(difference, 1.0, FLOAT64, lambda: floor) == 0.0
    assert leak_size(difference, 1.0, FLOAT64, lambda: floor * 1e-6) == pytest.approx(1e-8)
    assert leak_size(difference, 1e3, FLOAT64, lambda: floor * 0) == 0.0  # 1e-11 of the output


def test_a_leak_keyed_on_exact_values_does_not_pass_for_noise() -> None:
    x = torch.arange(12.0, dtype=torch.float64).view(1, 6, 2)
    weight = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def keyed(rows: torch.Tensor) -> torch.Tensor:
        whole = bool((rows == rows.round()).all())
        return (rows * weight + (rows.flip(1) if whole else 0)).detach()

    leak = prefix_leak(keyed, x, change_suffix(x, x + 1, [2]), [2], FLOAT64, generator(), [weight])
    assert leak is not None
    assert float(weight.detach()) == 1.0


def test_a_subject_needs_a_size() -> None:
    with pytest.raises(ValueError, match="sizes is empty"):
        Subject("matrix_mixer", "", [], 0)

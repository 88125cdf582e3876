"""Readings of influence maps against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.interpretability import decay_spectrum, map_figure, read_head

T = 32


def uniform() -> np.ndarray:
    return np.tril(np.ones((T, T))) / np.arange(1, T + 1)[:, None]


def exponential(rate: float) -> np.ndarray:
    positions = np.arange(T)
    weights = np.tril(np.exp(-rate * (positions[:, None] - positions)))
    return weights / weights.sum(axis=1, keepdims=True)


def test_a_uniform_head_has_the_entropy_of_its_row() -> None:
    found = read_head(uniform())
    lengths = np.arange(T // 2 + 1, T + 1)
    assert found.entropy == pytest.approx(np.log(lengths).mean())
    assert found.effective_context == pytest.approx(lengths.mean())
    assert found.mean_distance == pytest.approx(((lengths - 1) / 2).mean())


def test_a_head_that_reads_one_position_has_a_context_of_one() -> None:
    found = read_head(np.eye(T))
    assert (found.entropy, found.effective_context, found.mean_distance) == (0.0, 1.0, 0.0)
    assert found.half_life is None


@pytest.mark.parametrize("rate", [0.2, 0.5, 1.0])
def test_an_exponential_head_has_its_rate_back(rate: float) -> None:
    found = read_head(exponential(rate))
    assert found.decay_rate == pytest.approx(rate, rel=0.05)
    assert found.half_life == pytest.approx(math.log(2) / rate, rel=0.05)


def test_the_spectrum_is_sorted() -> None:
    rates = decay_spectrum(np.stack([exponential(0.8), exponential(0.1), exponential(0.4)]))
    assert rates == pytest.approx([0.1, 0.4, 0.8], rel=0.2)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.ones((T, 3)), "shape"),
        (np.full((T, T), 1 / T), "above its diagonal"),
        (np.tril(np.ones((T, T))), "sum to one"),
        (uniform() * np.nan, "finite"),
        (-uniform(), "not negative"),
    ],
)
def test_what_is_no_map_is_an_error(table: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_head(table)


def test_a_figure_has_a_panel_a_head() -> None:
    figure = map_figure({"reference": np.stack([uniform(), np.eye(T)]), "winner": np.stack([exponential(0.3)])})
    assert [axis.get_title() for axis in figure.axes[:3]] == [
        "reference, head 0",
        "reference, head 1",
        "winner, head 0",
    ]
    with pytest.raises(ValueError, match="no arm"):
        map_figure({})

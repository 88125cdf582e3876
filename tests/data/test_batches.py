"""Batches against the plain slices they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.batches import evaluation_windows, training_batch
from data.corpus import Corpus, CorpusError
from data.keyed_random import numpy_generator

TOKENS = np.arange(1000, dtype=np.uint16)


def naive_training_batch(tokens: np.ndarray, T: int, B: int, seed: int, step: int) -> tuple[list, list]:  # type: ignore[type-arg]
    starts = numpy_generator("training_batch", seed, step).integers(len(tokens) - T, size=B)
    rows = [tokens[start : start + T + 1].tolist() for start in starts]
    return [row[:-1] for row in rows], [row[1:] for row in rows]


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize(("T", "B"), [(1, 1), (63, 5), (999, 3)])
def test_gathered_batch_equals_plain_slices(T: int, B: int, dtype: type) -> None:
    tokens: np.ndarray = numpy_generator("tokens").integers(60_000, size=1000).astype(dtype)
    x, y = training_batch(tokens, seq_len=T, batch_size=B, seed=3, step=11)
    assert (x.tolist(), y.tolist()) == naive_training_batch(tokens, T, B, 3, 11)
    assert x.dtype == y.dtype == torch.int64
    assert x.is_contiguous()
    assert y.is_contiguous()


def test_any_step_directly_and_again() -> None:
    straight = [training_batch(TOKENS, seq_len=8, batch_size=4, seed=0, step=step)[0] for step in range(20)]
    assert torch.equal(straight[17], training_batch(TOKENS, seq_len=8, batch_size=4, seed=0, step=17)[0])
    assert len({tuple(x.flatten().tolist()) for x in straight}) == 20


def test_seeds_read_different_batches() -> None:
    one, other = (training_batch(TOKENS, seq_len=8, batch_size=4, seed=seed, step=0)[0] for seed in (0, 1))
    assert not torch.equal(one, other)


def test_every_window_can_be_drawn_and_none_beyond() -> None:
    tokens = np.arange(6, dtype=np.uint16)
    starts = {
        int(start)
        for step in range(50)
        for start in training_batch(tokens, seq_len=2, batch_size=4, seed=0, step=step)[0][:, 0]
    }
    assert starts == {0, 1, 2, 3}


def test_evaluation_windows_do_not_overlap_and_cover_the_whole_split() -> None:
    x, y = evaluation_windows(TOKENS, seq_len=10, max_tokens=205)
    assert x.shape == y.shape == (20, 10)
    assert torch.equal(y, x + 1)
    starts = x[:, 0]
    assert bool((starts.diff() >= 10).all())
    assert starts[0] == 0
    assert starts[-1] >= 900
    everything, _ = evaluation_windows(TOKENS, seq_len=10, max_tokens=10**9)
    assert everything.flatten().tolist() == list(range(990))


def test_a_corpus_feeds_them(library: Corpus) -> None:
    tokens = library.tokens("train")
    x, y = training_batch(tokens, seq_len=64, batch_size=8, seed=0, step=0)
    assert x.shape == (8, 64)
    assert int(y.max()) < library.vocab_size
    text = library.decode(tokens[:])
    assert all(library.decode(row) in text for row in x.numpy())


def test_one_window_exactly_fits() -> None:
    x, _ = training_batch(TOKENS[:9], seq_len=8, batch_size=2, seed=0, step=0)
    assert x[:, 0].tolist() == [0, 0]
    with pytest.raises(CorpusError, match=r"holds 8 tokens and one sequence of seq_len 8 needs 9"):
        training_batch(TOKENS[:8], seq_len=8, batch_size=2, seed=0, step=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seq_len": 0}, "seq_len must be 1 or more, got 0"),
        ({"batch_size": -1}, "batch_size must be 1 or more, got -1"),
        ({"step": -3}, "step must be 0 or more, got -3"),
        ({"seq_len": 5000}, "holds 1,000 tokens and one sequence of seq_len 5000 needs 5,001"),
    ],
)
def test_bad_sizes_are_refused(change: dict[str, int], message: str) -> None:
    arguments = {"seq_len": 8, "batch_size": 2, "seed": 0, "step": 0} | change
    with pytest.raises(CorpusError, match=message):
        training_batch(TOKENS, **arguments)


def test_an_evaluation_of_nothing_is_refused() -> None:
    with pytest.raises(CorpusError, match="must hold one window of seq_len 8, got 7"):
        evaluation_windows(TOKENS, seq_len=8, max_tokens=7)
    with pytest.raises(CorpusError, match="holds 0 tokens"):
        evaluation_windows(TOKENS[:0], seq_len=8, max_tokens=80)

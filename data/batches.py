"""Packed tokens to batches: windows that may start anywhere in a split.

Choices: a training batch is a pure function of (tokens, seed, step), so step 70,000 is as
cheap as step 0 and a resumed run reads exactly what the uninterrupted one would have read;
windows are drawn with replacement and run across document ends, which the end-of-document
token marks. One fancy index gathers a batch from the memory map (no Python loop over rows):
about 0.1 ms for 8 windows of 65 tokens. Evaluation windows do not overlap and are
spread evenly over the whole split, so that a short evaluation still sees all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from data.corpus_error import CorpusError
from data.keyed_random import numpy_generator

if TYPE_CHECKING:
    import torch

Tokens = npt.NDArray[Any]


def training_batch(
    tokens: Tokens, *, seq_len: int, batch_size: int, seed: int, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The inputs and targets of one training step.

    Args:
        tokens: the split's token ids, (N,) unsigned integers, usually a memory map.
        seq_len: window length T in tokens.
        batch_size: windows B.
        seed: the run's seed; arms with the same seed read the same batches in the same order.
        step: which step, from 0.

    Returns:
        x and y, both (B, T) int64 on the CPU; y is x moved on by one token.

    Raises:
        CorpusError: the split is shorter than one window, or a size is not positive, or step is negative.
    """
    _check(tokens, seq_len, batch_size=batch_size)
    if step < 0:
        raise CorpusError(f"step must be 0 or more, got {step}")
    starts = numpy_generator("training_batch", seed, step).integers(len(tokens) - seq_len, size=batch_size)
    return _windows(tokens, starts, seq_len)


def evaluation_windows(tokens: Tokens, *, seq_len: int, max_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same windows for every model: N = max_tokens // T of them, or all there are if that is fewer.

    Args:
        tokens: the split's token ids, (N,) unsigned integers, usually a memory map.
        seq_len: window length T in tokens.
        max_tokens: most tokens to evaluate on; at least one window.

    Returns:
        x and y, both (N, T) int64 on the CPU; y is x moved on by one token.

    Raises:
        CorpusError: the split is shorter than one window, or max_tokens holds none.
    """
    _check(tokens, seq_len)
    if max_tokens < seq_len:
        raise CorpusError(f"max_tokens must hold one window of seq_len {seq_len}, got {max_tokens}")
    there = (len(tokens) - 1) // seq_len
    n = min(there, max_tokens // seq_len)
    starts = np.arange(n, dtype=np.int64) * there // n * seq_len
    return _windows(tokens, starts, seq_len)


def _windows(tokens: Tokens, starts: npt.NDArray[np.int64], seq_len: int) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    positions = starts[:, None] + np.arange(seq_len + 1)  # (B, T + 1)
    gathered = torch.from_numpy(np.asarray(tokens[positions], dtype=np.int64))  # (B, T + 1)
    return gathered[:, :-1].contiguous(), gathered[:, 1:].contiguous()


def _check(tokens: Tokens, seq_len: int, batch_size: int = 1) -> None:
    for name, value in (("seq_len", seq_len), ("batch_size", batch_size)):
        if value < 1:
            raise CorpusError(f"{name} must be 1 or more, got {value}")
    if len(tokens) < seq_len + 1:
        raise CorpusError(
            f"the split holds {len(tokens):,} tokens and one sequence of seq_len {seq_len} needs {seq_len + 1:,}; "
            "use a larger corpus or a shorter seq_len"
        )

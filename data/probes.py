"""Six synthetic probes of what a sequence mixer can do (Poli et al. 2024, "Mechanistic Architecture Design").

Each asks for one skill at the price of seconds: recall of a value seen earlier in the sequence (plainly, with keys and
values of several tokens, or with noise between), copying marked tokens in order, squeezing a sequence into one vector,
and keeping facts in the weights. A batch is a pure function of (probe, seed, step). A target of -100 does not count:
only positions whose answer the input (or, for memorisation, earlier training) determines are asked for.

Letters: B batch, T tokens of the input, V vocabulary. Ids 0 to 3 are special, the others belong to the task.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from data.keyed_random import numpy_generator

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""Target of a position that does not count."""
BLANK, ASK, _NOISE_FROM = 0, 1, 2
_SPECIAL = 4
Ids = npt.NDArray[np.int64]
_Rows = Callable[["Probe", np.random.Generator, int, int], tuple[Ids, Ids]]


class UnknownProbeError(ValueError):
    """No probe of that name; the message lists the nearest one and all names."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One synthetic task.

    Attributes:
        name: how users call it.
        skill: what it asks for, in one line.
        vocab_size: V.
        seq_len: T.
        compresses: the answer (B, T - 1) is read from the last position's features alone; else y (B, T) holds what
            follows each position.
        chance: accuracy of an answer drawn evenly from the possible ones.
    """

    name: str
    skill: str
    vocab_size: int
    seq_len: int
    chance: float
    rows: _Rows
    compresses: bool = False

    def batch(self, *, batch_size: int, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The batch of a training step; evaluation uses steps no training reaches, such as negative ones.

        Args:
            batch_size: B.
            seed: of the run; arms with the same seed read the same batches. Memorisation's facts depend on it alone.
            step: which batch.

        Returns:
            x (B, T) and y, both int64: y is (B, T), or (B, T - 1) where `compresses`.

        Raises:
            ValueError: `batch_size` below 1.
        """
        import torch

        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
        generator = numpy_generator("probe", self.name, seed, step)
        x, y = self.rows(self, generator, batch_size, seed)
        return torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(np.ascontiguousarray(y))


def _next_tokens(tokens: Ids, asked: npt.NDArray[np.bool_]) -> tuple[Ids, Ids]:
    """tokens (B, T + 1) to x, y (B, T): y is the next token where `asked` (B, T + 1) marks it."""
    return tokens[:, :-1], np.where(asked, tokens, IGNORED)[:, 1:]


def _in_context_recall(probe: Probe, generator: np.random.Generator, batch_size: int, seed: int) -> tuple[Ids, Ids]:
    return _recall(probe, generator, batch_size, longest=1, noise=0.0)


def _fuzzy_recall(probe: Probe, generator: np.random.Generator, batch_size: int, seed: int) -> tuple[Ids, Ids]:
    return _recall(probe, generator, batch_size, longest=3, noise=0.0)


def _noisy_recall(probe: Probe, generator: np.random.Generator, batch_size: int, seed: int) -> tuple[Ids, Ids]:
    return _recall(probe, generator, batch_size, longest=1, noise=0.2)


def _recall(
    probe: Probe, generator: np.random.Generator, batch_size: int, *, longest: int, noise: float
) -> tuple[Ids, Ids]:
    """Key value key value ...: a value is asked for where its key was seen before; a noise token may come between."""
    half = (probe.vocab_size - _SPECIAL) // 2
    n_keys = 8
    tokens = np.empty((batch_size, probe.seq_len + 1), dtype=np.int64)
    asked = np.zeros_like(tokens, dtype=np.bool_)
    for row in range(batch_size):
        lengths = generator.integers(1, longest + 1, size=(2, n_keys))
        # No key begins another: the first tokens of the keys differ.
        first = generator.permutation(half)[:n_keys]
        keys = [
            _SPECIAL + np.concatenate([[f], generator.integers(half, size=n - 1)])
            for f, n in zip(first, lengths[0], strict=True)
        ]
        values = [_SPECIAL + half + generator.integers(half, size=n) for n in lengths[1]]
        written: list[int] = []
        marks: list[bool] = []
        seen: set[int] = set()
        while len(written) <= probe.seq_len:
            pair = int(generator.integers(n_keys))
            written += [*keys[pair], *values[pair]]
            marks += [False] * len(keys[pair]) + [pair in seen] * len(values[pair])
            seen.add(pair)
            if noise and generator.random() < noise:
                written.append(_NOISE_FROM + int(generator.integers(_SPECIAL - _NOISE_FROM)))
                marks.append(False)
        tokens[row] = written[: probe.seq_len + 1]
        asked[row] = marks[: probe.seq_len + 1]
    return _next_tokens(tokens, asked)


def _selective_copy(probe: Probe, generator: np.random.Generator, batch_size: int, seed: int) -> tuple[Ids, Ids]:
    """Tokens at random places among blanks, then as many asks: at each ask the next of the tokens, in order."""
    n_copied = probe.seq_len // 4
    shown = probe.seq_len - n_copied
    x = np.full((batch_size, probe.seq_len), BLANK, dtype=np.int64)
    y = np.full((batch_size, probe.seq_len), IGNORED, dtype=np.int64)
    copied = _SPECIAL + generator.integers(probe.vocab_size - _SPECIAL, size=(batch_size, n_copied))
    places = np.sort(np.argsort(generator.random((batch_size, shown)), axis=1)[:, :n_copied], axis=1)
    np.put_along_axis(x, places, copied, axis=1)
    x[:, shown:] = ASK
    y[:, shown:] = copied
    return x, y


def _compression(probe: Probe, generator: np.random.Generator, batch_size: int, seed: int) -> tuple[Ids, Ids]:
    """Random tokens and one ask; the tokens are read back from the ask's features."""
    tokens = _SPECIAL + generator.integers(probe.vocab_size - _SPECIAL, size=(batch_size, probe.seq_len - 1))
    return np.concatenate([tokens, np.full((batch_size, 1), ASK)], axis=1), tokens


def _memorisation(probe: Probe, generator: np.random.Generator, batch_size: int, seed: int) -> tuple[Ids, Ids]:
    """Key, blank, key, blank ...: at each blank the key's value, which is nowhere in the input."""
    keys = (probe.vocab_size - _SPECIAL) // 2
    facts = _SPECIAL + keys + numpy_generator("probe", probe.name, "facts", seed).integers(keys, size=keys)
    drawn = generator.integers(keys, size=(batch_size, probe.seq_len // 2))
    x = np.full((batch_size, probe.seq_len), BLANK, dtype=np.int64)
    x[:, 0::2] = _SPECIAL + drawn
    y = np.full((batch_size, probe.seq_len), IGNORED, dtype=np.int64)
    y[:, 1::2] = facts[drawn]
    return x, y


_PROBES = (
    Probe(
        name="in_context_recall",
        skill="recall the value that followed a key earlier in the sequence",
        vocab_size=36,
        seq_len=64,
        chance=1 / 16,
        rows=_in_context_recall,
    ),
    Probe(
        name="fuzzy_recall",
        skill="recall where keys and values are one to three tokens long",
        vocab_size=36,
        seq_len=96,
        chance=1 / 16,
        rows=_fuzzy_recall,
    ),
    Probe(
        name="noisy_recall",
        skill="recall with noise tokens between the pairs",
        vocab_size=36,
        seq_len=64,
        chance=1 / 16,
        rows=_noisy_recall,
    ),
    Probe(
        name="selective_copy",
        skill="copy the tokens that stand among blanks, in order",
        vocab_size=20,
        seq_len=64,
        chance=1 / 16,
        rows=_selective_copy,
    ),
    Probe(
        name="compression",
        skill="keep a whole sequence in one vector",
        vocab_size=20,
        seq_len=17,
        chance=1 / 16,
        rows=_compression,
        compresses=True,
    ),
    Probe(
        name="memorisation",
        skill="keep facts in the weights",
        vocab_size=132,
        seq_len=32,
        chance=1 / 64,
        rows=_memorisation,
    ),
)


def probes() -> dict[str, Probe]:
    """All probes by name, in the order they are shown."""
    return {probe.name: probe for probe in _PROBES}


def probe(name: str) -> Probe:
    """The probe called `name`.

    Raises:
        UnknownProbeError: there is none.
    """
    known: dict[str, Any] = probes()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise UnknownProbeError(f"unknown probe {name!r}{hint} Known: {', '.join(known)}")
    found: Probe = known[name]
    return found

"""Draws a population's noise: the same numbers for a pair whatever is drawn beside it.

Choices: one generator a pair, keyed (run, noise epoch, pair), one flat draw, sliced by matrix. So a matrix's place in
the model is part of its noise (equal shapes never share it), and a pair has the same noise in a chunk as in the whole
population. `noise_reuse` keeps the noise of an epoch for so many epochs, 0 for ever. Antithetic members share a pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data.keyed_random import torch_generator
from models.fsmt.error import TranslationError
from models.fsmt.parameters import Matrix


@dataclass(frozen=True, kw_only=True)
class Factors:
    """Noise of K pairs for one matrix.

    Attributes:
        A: (K, out, r); full rank: (K, out, in).
        B: (K, in, r); None for full rank.
    """

    A: Tensor
    B: Tensor | None

    @property
    def n_pairs(self) -> int:
        """K."""
        return int(self.A.shape[0])

    @property
    def rank(self) -> int | None:
        """r; None for full rank."""
        return None if self.B is None else int(self.A.shape[2])

    def narrow(self, start: int, count: int) -> Factors:
        """Those of `count` pairs from `start` on, without a copy."""
        return Factors(A=self.A.narrow(0, start, count), B=None if self.B is None else self.B.narrow(0, start, count))


class NoiseSource:
    """Noise of the chosen matrices of one run.

    Args:
        run: key of the run, for instance its seed.
        chosen: the matrices that evolve, in a fixed order.
        rank: r, or None for full rank.
        noise_reuse: epochs that share a noise; 0: all of them.

    Raises:
        TranslationError: nothing evolves, or the rank or the reuse is out of range.
    """

    def __init__(self, *, run: int, chosen: Sequence[Matrix], rank: int | None, noise_reuse: int = 1) -> None:
        if not chosen:
            raise TranslationError("no matrix evolves: every parameter is frozen; choose at least one")
        if rank is not None and rank < 1:
            raise TranslationError(f"rank {rank}: must be at least 1, or None for full rank")
        if noise_reuse < 0:
            raise TranslationError(f"noise_reuse {noise_reuse}: must be 0 (one noise for ever) or more")
        self._run = run
        self._chosen = tuple(chosen)
        self._rank = rank
        self._noise_reuse = noise_reuse

    @property
    def floats_per_pair(self) -> int:
        """Numbers drawn for one pair."""
        return sum(self._width(matrix) for matrix in self._chosen)

    def draw(self, epoch: int, pairs: Iterable[int]) -> dict[str, Factors]:
        """Factors by matrix name, fp32, of the given pairs in their order.

        Args:
            epoch: of the run; `noise_reuse` maps it to the noise's.
            pairs: indices of pairs.
        """
        noise_epoch = epoch // self._noise_reuse if self._noise_reuse else 0
        wanted = list(pairs)
        flat = torch.empty(len(wanted), self.floats_per_pair)
        for row, pair in enumerate(wanted):
            generator = torch_generator("es noise", self._run, noise_epoch, pair)
            torch.randn(flat.shape[1], generator=generator, out=flat[row])
        factors: dict[str, Factors] = {}
        start = 0
        for matrix in self._chosen:
            out, n_in = matrix.shape
            part = flat[:, start : start + self._width(matrix)]
            start += self._width(matrix)
            if self._rank is None:
                factors[matrix.name] = Factors(A=torch.unflatten(part, 1, (out, n_in)), B=None)
            else:
                a, b = part[:, : out * self._rank], part[:, out * self._rank :]
                factors[matrix.name] = Factors(
                    A=torch.unflatten(a, 1, (out, self._rank)), B=torch.unflatten(b, 1, (n_in, self._rank))
                )
        return factors

    def _width(self, matrix: Matrix) -> int:
        return matrix.count if self._rank is None else self._rank * sum(matrix.shape)

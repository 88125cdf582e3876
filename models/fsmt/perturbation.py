"""A whole population in one batched forward pass, through an unmodified `generate()`.

The batch holds the members one after the other, each with the same number of rows: member m owns the rows
[m R, (m + 1) R), and members 2 p and 2 p + 1 are the pair p with signs + and -. A pair so owns 2 R neighbouring rows.
While `perturbed` is open, the forward of every module that reads an evolved matrix adds its member's noise:

    linear      y = x W^T + s (x B_p) (sigma / sqrt(r) A_p)^T        the matrix W + s E_p is never built
    embedding   y = W[ids] + s A_p[ids] (sigma / sqrt(r) B_p)^T

How many rows a member has is read from the batch, so beams (rows of a member stay neighbours when they are expanded
and reordered), the key-value cache and a batch of any size need nothing else. Choices: rank 1 is done elementwise,
other ranks by batched products; nothing of the weights is touched, so there is nothing to restore but the forwards.
`materialised` is the oracle: it writes W + E into the model for one member.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from frameworks.noisers import naive
from models.fsmt.error import TranslationError
from models.fsmt.factors import Factors
from models.fsmt.parameters import Matrix, Use

Sigma = Mapping[str, float]


@contextmanager
def perturbed(
    model: nn.Module, chosen: Sequence[Matrix], factors: Mapping[str, Factors], sigma: Sigma
) -> Iterator[None]:
    """Within the block, the model computes 2 K members at once.

    Args:
        model: the FSMT model; its batch must be a multiple of 2 K rows.
        chosen: the matrices that evolve.
        factors: noise by matrix name, all with the same K pairs.
        sigma: deviation by matrix name.

    Raises:
        TranslationError: the model is already perturbed, or, from the forward, the batch is not divisible.
    """
    modules = [model.get_submodule(use.module) for matrix in chosen for use in matrix.uses]
    if any("forward" in vars(module) for module in modules):
        raise TranslationError("the model is already perturbed; populations do not nest")
    try:
        for matrix in chosen:
            noise = _Noise(factors[matrix.name], sigma[matrix.name])
            for use in matrix.uses:
                module = model.get_submodule(use.module)
                module.forward = _forward_of(module, use, noise)
        yield
    finally:
        for module in modules:
            vars(module).pop("forward", None)


@contextmanager
def materialised(
    model: nn.Module, chosen: Sequence[Matrix], factors: Mapping[str, Factors], sigma: Sigma, member: int
) -> Iterator[None]:
    """Within the block, the model's weights are those of one member: the oracle of `perturbed`.

    The masters are put back bit for bit.
    """
    weights = [model.get_parameter(matrix.name) for matrix in chosen]
    masters = [weight.data for weight in weights]
    try:
        for matrix, weight in zip(chosen, weights, strict=True):
            noise = factors[matrix.name]
            weight.data = weight.data + naive.noise(noise.A, noise.B, member, sigma[matrix.name])
        yield
    finally:
        for weight, master in zip(weights, masters, strict=True):
            weight.data = master


class _Noise:
    """Factors of one matrix with sigma / sqrt(r) folded in once, in the layout the products want."""

    def __init__(self, factors: Factors, sigma: float) -> None:
        self.n_pairs = factors.n_pairs
        self.rank = factors.rank
        self.B = None if factors.B is None else factors.B.contiguous()  # (K, in, r)
        scale = sigma / math.sqrt(factors.rank or 1)
        self.A = factors.A * scale  # (K, out, r) or (K, out, in)
        self.At = self.A.transpose(1, 2).contiguous()  # (K, r, out) or (K, in, out)
        self._signs: dict[int, Tensor] = {}

    def rows_per_pair(self, rows: int) -> int:
        per_pair, rest = divmod(rows, self.n_pairs)
        if rest or per_pair % 2 or not per_pair:
            raise TranslationError(
                f"a batch of {rows} rows cannot be shared by {2 * self.n_pairs} members; it must be a multiple of that"
            )
        return per_pair

    def signs(self, per_pair: int) -> Tensor:
        """(2 R, 1): + for the first R rows of a pair, - for the others."""
        if per_pair not in self._signs:
            half = torch.ones(per_pair // 2, 1)
            self._signs[per_pair] = torch.cat([half, -half])
        return self._signs[per_pair]


def _forward_of(module: nn.Module, use: Use, noise: _Noise) -> Callable[[Tensor], Tensor]:
    if isinstance(module, nn.Linear):
        add = _add_to_time_first if use.batch_dim == 1 else _add_to_batch_first

        def linear(x: Tensor) -> Tensor:
            y = F.linear(x, module.weight, module.bias)
            add(x, y, noise)
            return y

        return linear

    def embedding(ids: Tensor) -> Tensor:
        return _embed(module, ids, noise)

    return embedding


def _add_to_time_first(x: Tensor, y: Tensor, noise: _Noise) -> None:
    """Add the members' part to y (T, batch, out) in place, for x (T, batch, in)."""
    per_pair = noise.rows_per_pair(x.shape[1])
    shape = (noise.n_pairs, per_pair)
    split_x, split_y = torch.unflatten(x, 1, shape), torch.unflatten(y, 1, shape)  # (T, K, 2R, in), (T, K, 2R, out)
    signs = noise.signs(per_pair)
    if noise.rank == 1 and noise.B is not None:
        s = (split_x * noise.B.transpose(1, 2)).sum(-1, keepdim=True) * signs  # (T, K, 2R, 1)
        split_y.addcmul_(s, noise.At)
    elif x.shape[0] == 1:
        split_y[0].baddbmm_(_inner(split_x[0], noise) * signs, noise.At)
    else:
        n_steps = x.shape[0]
        rows = split_x.transpose(0, 1).flatten(1, 2)  # (K, T 2R, in)
        s = torch.unflatten(_inner(rows, noise), 1, (n_steps, per_pair)) * signs
        added = torch.bmm(s.flatten(1, 2), noise.At)
        split_y += torch.unflatten(added, 1, (n_steps, per_pair)).transpose(0, 1)


def _add_to_batch_first(x: Tensor, y: Tensor, noise: _Noise) -> None:
    """Add the members' part to y (batch, T, out) in place, for x (batch, T, in)."""
    per_pair = noise.rows_per_pair(x.shape[0])
    n_steps = x.shape[1]
    rows = torch.unflatten(x, 0, (noise.n_pairs, per_pair)).flatten(1, 2)  # (K, 2R T, in)
    s = torch.unflatten(_inner(rows, noise), 1, (per_pair, n_steps)) * noise.signs(per_pair)[:, None]
    y += torch.unflatten(torch.bmm(s.flatten(1, 2), noise.At), 1, (per_pair, n_steps)).flatten(0, 1)


def _inner(rows: Tensor, noise: _Noise) -> Tensor:
    """(K, n, in) -> what the outer factor is applied to: (K, n, r), or the rows themselves for full rank."""
    return rows if noise.B is None else torch.bmm(rows, noise.B)


def _embed(module: Any, ids: Tensor, noise: _Noise) -> Tensor:
    """Rows of the members' tables for ids (batch, T) -> (batch, T, E)."""
    y: Tensor = F.embedding(ids, module.weight, module.padding_idx)
    per_pair = noise.rows_per_pair(ids.shape[0])
    n_steps = ids.shape[1]
    of_pair = ids.view(noise.n_pairs, per_pair * n_steps)  # (K, 2R T)
    looked_up = torch.stack([table[rows] for table, rows in zip(noise.A, of_pair, strict=True)])
    added = looked_up if noise.B is None else torch.bmm(looked_up, noise.B.transpose(1, 2))  # (K, 2R T, E)
    signs = noise.signs(per_pair)[:, None]  # (2R, 1, 1)
    return y + (torch.unflatten(added, 1, (per_pair, n_steps)) * signs).flatten(0, 1)

"""A noiser: how a population is perturbed, and what is learnt from its fitness.

One stateless contract for all: `shape_fitness(raw, groups)` and `update(A, B, signs, fitness, sigma, lr, state)`, pure
functions in the EVOLVE-BLOCK of the noiser's file, and the module constant NOISE, which says what the harness draws.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from torch import Tensor

Noise = Literal["low_rank", "full_rank"]
State = dict[str, Any]

NOISERS = ("eggroll", "open_es", "gaussian")


class UnknownNoiserError(ValueError):
    """No noiser of that name; the message lists near matches and all names."""


class NoiserError(ValueError):
    """A noiser's function broke its contract; the message says which and how."""


@dataclass(frozen=True, kw_only=True)
class Noiser:
    """One noiser.

    Attributes:
        name: how users call it.
        noise: `low_rank` (factors A (K, out, r), B (K, in, r)) or `full_rank` (A (K, out, in), B None).
        shape_fitness: raw fitness (N,) fp64 and group (N,) int64 -> shaped fitness (N,).
        update: (A, B, signs (N,), fitness (N,), sigma, lr, state) -> (change (out, in), state).
    """

    name: str
    noise: Noise
    shape_fitness: Callable[[Tensor, Tensor], Tensor]
    update: Callable[[Tensor, Tensor | None, Tensor, Tensor, float, float, State], tuple[Tensor, State]]


def noiser_source(name: str) -> Path:
    """The file of a noiser, which holds its EVOLVE-BLOCK.

    Raises:
        UnknownNoiserError: there is none of that name.
    """
    if name not in NOISERS:
        near = difflib.get_close_matches(name, NOISERS, n=2, cutoff=0.4)
        hint = f"; did you mean {' or '.join(repr(match) for match in near)}?" if near else "."
        raise UnknownNoiserError(f"unknown noiser {name!r}{hint} Known: {', '.join(NOISERS)}")
    return Path(__file__).with_name(f"{name}.py")


def noiser(name: str) -> Noiser:
    """The noiser called `name`.

    Raises:
        UnknownNoiserError: there is none; the message lists near matches and all names.
    """
    noiser_source(name)
    return noiser_of_module(name, importlib.import_module(f"frameworks.noisers.{name}"))


def noiser_of_module(name: str, module: ModuleType) -> Noiser:
    """The noiser that a loaded file defines: a shipped one, or a candidate with its block spliced in.

    Raises:
        NoiserError: a function is missing, or NOISE is none of the two kinds.
    """
    for function in ("shape_fitness", "update"):
        if not callable(getattr(module, function, None)):
            raise NoiserError(f"noiser {name}: the block defines no function '{function}'")
    noise: Any = getattr(module, "NOISE", None)
    if noise not in get_args(Noise):
        raise NoiserError(f"noiser {name}: NOISE is {noise!r}; allowed: {', '.join(get_args(Noise))}")
    return Noiser(name=name, noise=noise, shape_fitness=module.shape_fitness, update=module.update)

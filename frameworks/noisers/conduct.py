"""What every noiser must do, checked on drawn numbers: shapes, finite, no step without a signal, no too long step,
and no dependence on the order of the members.

Each check takes a noiser and a generator, and gives None or the reason it fails, in one sentence. They run on shipped
noisers in the tests and on a candidate before anything is spent on it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from frameworks.noisers.noiser import Noiser

STEP_CAP = 10.0
"""A step's RMS may be at most this many times lr * sigma; the shipped noisers' is about 1."""
_SHAPES = ((5, 7, 1, 4, 2), (8, 3, 4, 6, 4), (1, 9, 2, 2, 2), (16, 16, 1, 64, 8))
"""(out, in, rank, pairs, members a group)."""
_SIGMA, _LR = 1e-2, 0.5

Drawn = tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor]


def faults(noiser: Noiser, generator: torch.Generator) -> dict[str, str]:
    """Check -> reason, of every check that fails; empty where the noiser behaves."""
    checks: dict[str, Callable[[Noiser, Drawn], str | None]] = {
        "shape": _shape,
        "finite": _finite,
        "no_signal": _no_signal,
        "step_size": _step_size,
        "order": _order,
    }
    found: dict[str, str] = {}
    for shape in _SHAPES:
        drawn = _draw(noiser, shape, generator)
        for name, check in checks.items():
            if name in found:
                continue
            try:
                reason = check(noiser, drawn)
            except Exception as error:  # a candidate may raise anything
                reason = f"{type(error).__name__}: {str(error)[:200]}"
            if reason is not None:
                found[name] = f"{reason} (out, in, rank, pairs, group = {shape})"
        if "shape" in found:
            break  # the others would only say it again
    return found


def _draw(noiser: Noiser, shape: tuple[int, int, int, int, int], generator: torch.Generator) -> Drawn:
    out, n_in, rank, pairs, group = shape
    low = noiser.noise == "low_rank"
    A = torch.randn(pairs, out, rank if low else n_in, generator=generator)
    B = torch.randn(pairs, n_in, rank, generator=generator) if low else None
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(pairs)
    raw = torch.rand(2 * pairs, generator=generator, dtype=torch.float64)
    return A, B, signs, raw, torch.arange(2 * pairs) // group


def _step(noiser: Noiser, drawn: Drawn) -> tuple[Tensor, Tensor]:
    A, B, signs, raw, groups = drawn
    fitness = noiser.shape_fitness(raw.clone(), groups.clone())
    delta, _ = noiser.update(A.clone(), None if B is None else B.clone(), signs.clone(), fitness, _SIGMA, _LR, {})
    return fitness, delta


def _shape(noiser: Noiser, drawn: Drawn) -> str | None:
    A, B, _, raw, _ = drawn
    fitness, delta = _step(noiser, drawn)
    wanted = (A.shape[1], A.shape[2] if B is None else B.shape[1])
    if not isinstance(fitness, Tensor) or fitness.shape != raw.shape:
        return f"shape_fitness gave {_shown(fitness)}; it must be a tensor of shape {tuple(raw.shape)}"
    if not isinstance(delta, Tensor) or tuple(delta.shape) != wanted:
        return f"update gave {_shown(delta)}; it must be a tensor of shape {wanted}"
    return None


def _finite(noiser: Noiser, drawn: Drawn) -> str | None:
    A, B, signs, raw, groups = drawn
    for factor in (1.0, 1e6, 1e-6):
        fitness, delta = _step(noiser, (A, B, signs, raw * factor, groups))
        if not bool(torch.isfinite(fitness).all()) or not bool(torch.isfinite(delta).all()):
            return f"the step is not finite for fitness between 0 and {factor:g}"
    return None


def _no_signal(noiser: Noiser, drawn: Drawn) -> str | None:
    A, B, signs, raw, groups = drawn
    for value in (0.0, 0.37):
        _, delta = _step(noiser, (A, B, signs, torch.full_like(raw, value), groups))
        size = float(delta.square().mean().sqrt()) / (_LR * _SIGMA)
        if not size < 1e-4:
            return f"the step is {size:.3g} lr * sigma although every member's fitness is {value}"
    return None


def _step_size(noiser: Noiser, drawn: Drawn) -> str | None:
    _, delta = _step(noiser, drawn)
    size = float(delta.square().mean().sqrt()) / (_LR * _SIGMA)
    return None if size <= STEP_CAP else f"the step's RMS is {size:.3g} lr * sigma; allowed: at most {STEP_CAP:g}"


def _order(noiser: Noiser, drawn: Drawn) -> str | None:
    """Pairs in reverse, and the two members of each swapped: fitness moves along, the step stays."""
    A, B, signs, raw, groups = drawn
    moved: Drawn = (A.flip(0), None if B is None else B.flip(0), signs.flip(0), raw.flip(0), groups.flip(0))
    fitness, delta = _step(noiser, drawn)
    moved_fitness, moved_delta = _step(noiser, moved)
    if not torch.allclose(moved_fitness.flip(0), fitness, rtol=1e-5, atol=1e-6):
        return "a member's shaped fitness depends on its place among the members"
    if not torch.allclose(moved_delta, delta, rtol=1e-3, atol=1e-4 * _LR * _SIGMA):
        return "the step depends on the order of the members"
    return None


def _shown(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"

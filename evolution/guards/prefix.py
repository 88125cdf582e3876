"""Does an output change when only later inputs change?

`prefix_leak` compares two runs that share a prefix; `truncation_leak` compares a run with one on the prefix alone.
A cut c means: positions 0..c are shared, and outputs 0..c must be equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from evolution.guards.rounding import Tolerance, leak_size, noise_floor

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Leak:
    """A confirmed dependence on later positions.

    Attributes:
        leak: largest change of an output, relative to the largest output.
        to_position: position of that output, from 0.
        from_position: later position whose change moves it most; None when only several together do.
        after: last shared position; everything behind it was changed.
        length: tokens in the sequence.
        batch: rows in the call.
    """

    leak: float
    to_position: int
    from_position: int | None
    after: int
    length: int
    batch: int

    def evidence(self) -> dict[str, float | int | None]:
        """The leak as JSON values."""
        return asdict(self)


def change_suffix(x: Tensor, other: Tensor, cuts: Sequence[int]) -> Tensor:
    """x (B, T, C) with row b taken from `other` behind position cuts[b]."""
    position = torch.arange(x.shape[1], device=x.device)
    behind = position > torch.tensor(cuts, device=x.device).unsqueeze(-1)  # (B, T)
    return torch.where(behind.view(*behind.shape, *([1] * (x.ndim - 2))), other, x)


def prefix_leak(
    run: Run,
    x: Tensor,
    changed: Tensor,
    cuts: Sequence[int],
    tolerance: Tolerance,
    generator: torch.Generator,
    parameters: Sequence[Tensor],
    base: Tensor | None = None,
) -> Leak | None:
    """The leak between `x` and `changed`, which share the first cuts[b] + 1 positions of each row.

    A row whose changed tail overflows by itself is undecided: infinity times a masked zero is not a leak. A row whose
    prefix overflows while its tail does not is one.
    """
    base = run(x) if base is None else base
    other = run(changed)
    shared = torch.arange(x.shape[1], device=x.device) <= torch.tensor(cuts, device=x.device).unsqueeze(-1)
    mask = shared.unsqueeze(-1)  # (B, T, 1)
    if not bool(torch.isfinite(base).all()):
        return None
    overflowed = ~torch.isfinite(other).all(-1)  # (B, T)
    undecided = (overflowed & ~shared).any(-1) & (overflowed & shared).any(-1)
    other = torch.where(undecided.view(-1, 1, 1), base, other)
    difference = torch.where(mask, (other - base).abs(), 0.0)
    difference = torch.nan_to_num(difference, nan=float("inf"), posinf=float("inf"))
    scale = float(base.abs().max())

    def noise() -> Tensor:
        floor = torch.maximum(
            noise_floor(run, x, tolerance, generator, parameters),
            noise_floor(run, changed, tolerance, generator, parameters),
        )
        return torch.where(mask, floor, 0.0)

    size = leak_size(difference, scale, tolerance, noise)
    if size == 0.0:
        return None
    row, to = divmod(int(difference.amax(-1).flatten().argmax()), x.shape[1])
    source = _source(run, x, changed, row, to, cuts[row], float(difference[row, to].max()))
    return Leak(leak=size, to_position=to, from_position=source, after=cuts[row], length=x.shape[1], batch=x.shape[0])


def _source(run: Run, x: Tensor, changed: Tensor, row: int, to: int, cut: int, whole: float) -> int | None:
    """The single later position whose change moves output `to` most, if one alone moves it noticeably."""
    best, found = 0.0, None
    base = run(x)[row, to]
    candidates = list(range(cut + 1, x.shape[1]))
    for position in candidates if len(candidates) <= 16 else [*candidates[:12], *candidates[-4:]]:
        one = x.clone()
        one[row, position] = changed[row, position]
        moved = float((run(one)[row, to] - base).abs().max())
        if moved > best:
            best, found = moved, position
    return found if best > 1e-3 * min(whole, 1e300) else None


def truncation_leak(
    run: Run,
    x: Tensor,
    cut: int,
    tolerance: Tolerance,
    generator: torch.Generator,
    parameters: Sequence[Tensor],
    base: Tensor | None = None,
) -> Leak | None:
    """The leak between x and its first `cut` + 1 positions alone."""
    base = run(x) if base is None else base
    alone = run(x[:, : cut + 1])
    if not bool(torch.isfinite(base).all()):
        return None
    difference = torch.nan_to_num((alone - base[:, : cut + 1]).abs(), nan=float("inf"))

    def noise() -> Tensor:
        longer = noise_floor(run, x, tolerance, generator, parameters)[:, : cut + 1]
        return torch.maximum(longer, noise_floor(run, x[:, : cut + 1], tolerance, generator, parameters))

    size = leak_size(difference, float(base.abs().max()), tolerance, noise)
    if size == 0.0:
        return None
    to = int(difference.amax((0, 2)).argmax())
    return Leak(leak=size, to_position=to, from_position=None, after=cut, length=x.shape[1], batch=x.shape[0])

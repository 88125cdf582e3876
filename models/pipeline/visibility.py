"""Which keys a query may see: stencils and the cache's window, combined by AND with causality.

A rule is asked with positions, so training, decoding and the blocked form share one definition. Masks that are
merged by `maximum` (OR) would open the future; here each rule can only take away.
"""

from __future__ import annotations

import torch
from torch import Tensor

from frameworks.architecture.mixer import (
    AttentionMixer,
    BlockStencil,
    DilatedStencil,
    HybridStencil,
    LocalStencil,
    RingCache,
    RingStencil,
    Stencil,
    WindowCache,
)


class Visibility:
    """The rule of one attention mixer.

    Args:
        spec: the mixer.
    """

    def __init__(self, spec: AttentionMixer) -> None:
        stencils: list[Stencil] = list(spec.stencils)
        if isinstance(spec.kv, WindowCache | RingCache):
            stencils.append(LocalStencil(window=spec.kv.window))
        self.stencils = tuple(stencils)

    @property
    def unrestricted(self) -> bool:
        """Whether causality is the only rule."""
        return not self.stencils

    def reach(self) -> int | None:
        """The furthest distance plus one that a query can see back; None where there is no bound."""
        bounds = [bound for bound in (_reach(stencil) for stencil in self.stencils) if bound is not None]
        return min(bounds) if bounds else None

    def __call__(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Positions (..., T) and (..., S) to a boolean (..., T, S); a negative key position is no key."""
        i, j = queries.unsqueeze(-1), keys.unsqueeze(-2)
        seen = (j <= i) & (j >= 0)
        for stencil in self.stencils:
            seen = seen & allows(stencil, i, j)
        return seen


def allows(stencil: Stencil, i: Tensor, j: Tensor) -> Tensor:
    if isinstance(stencil, LocalStencil):
        return i - j < stencil.window
    if isinstance(stencil, DilatedStencil):
        return (i - j) % stencil.dilation == 0
    if isinstance(stencil, HybridStencil):
        return (i - j < stencil.window) | (j < stencil.sinks)
    blocks = torch.div(i, stencil.block, rounding_mode="floor") - torch.div(j, stencil.block, rounding_mode="floor")
    return blocks <= (1 if isinstance(stencil, RingStencil) else 0)


def _reach(stencil: Stencil) -> int | None:
    if isinstance(stencil, LocalStencil):
        return stencil.window
    if isinstance(stencil, BlockStencil):
        return stencil.block
    return 2 * stencil.block if isinstance(stencil, RingStencil) else None

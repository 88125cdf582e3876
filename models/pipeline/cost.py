"""What a part of an architecture costs, counted from the DSL before anything is built.

A multiply and an add are two FLOPs; only matrix products and convolutions count, as torch's own counter counts them
with plain attention. Everything is for one forward pass over (B, T) tokens; bytes are those held after decoding
T tokens with batch 1 in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Batch B and tokens T of the pass that is counted."""

    batch: int
    length: int

    @property
    def tokens(self) -> int:
        """B T."""
        return self.batch * self.length


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Parameters, FLOPs of a forward pass, bytes of key/value caches and of other states."""

    parameters: int = 0
    flops: int = 0
    kv_bytes: int = 0
    state_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            parameters=self.parameters + other.parameters,
            flops=self.flops + other.flops,
            kv_bytes=self.kv_bytes + other.kv_bytes,
            state_bytes=self.state_bytes + other.state_bytes,
        )

    def repeated(self, times: int, *, shared: bool = False) -> Cost:
        """`times` of it; `shared` copies have the same parameters."""
        return Cost(
            parameters=self.parameters * (1 if shared else times),
            flops=self.flops * times,
            kv_bytes=self.kv_bytes * times,
            state_bytes=self.state_bytes * times,
        )


def matrices(weights: int, tokens: int) -> Cost:
    """Matrices of `weights` entries that every one of `tokens` rows is multiplied by."""
    return Cost(parameters=weights, flops=2 * weights * tokens)

"""What a layer sees beside its input, and what it leaves behind.

Letters: B batch, T tokens, C model width, G key/value heads, S keys, D head width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Keys and values that another stage may read: (B, G, S, D) each, at positions (S,).

    `window` is how far back the owner's cache reaches; a reader sees no further.
    """

    k: Tensor
    v: Tensor
    positions: Tensor
    window: int | None


@dataclass(frozen=True, kw_only=True)
class Routing:
    """How one router spread its tokens: usage (E,) sums to 1, entropy in nats of the mean token."""

    place: str
    usage: Tensor
    entropy: Tensor


@dataclass(kw_only=True)
class Scope:
    """One pass through a stage.

    Attributes:
        causal: False only in an encoder.
        memory: (B, T, C) that attention makes keys and values from instead of its input; None is the input.
        shared: keys and values of another stage, read instead of own ones.
        condition: (B, T, C) that steers the stage.
        position: position of the first token; above 0 only while decoding.
        published: set by the newest attention, for `kv_from` of later stages.
        losses: balance and latent losses of this pass.
        kl: nats a token that each latent sampler's posterior holds beyond its prior.
        sample: which draw of the latents this pass takes.
        routing: what routers did.
        place: what the layer at hand is called.
    """

    causal: bool = True
    memory: Tensor | None = None
    shared: Keys | None = None
    condition: Tensor | None = None
    position: int = 0
    published: Keys | None = None
    losses: list[Tensor] = field(default_factory=list)
    kl: list[Tensor] = field(default_factory=list)
    routing: list[Routing] = field(default_factory=list)
    sample: int = 0
    place: str = ""


class State(Protocol):
    """What a mixer carries from token to token."""

    def n_bytes(self) -> int:
        """Bytes held."""
        ...


@dataclass(kw_only=True)
class Carried:
    """A state of named tensors."""

    tensors: dict[str, Tensor]

    def n_bytes(self) -> int:
        """Bytes held."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


class SequenceMixer(nn.Module):
    """What every mixer offers: the whole sequence at once, or one token at a time with a state."""

    def forward(self, x: Tensor, scope: Scope) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        raise NotImplementedError

    def begin(self, batch: int) -> State:
        """The state before the first token."""
        raise NotImplementedError

    def step(self, x: Tensor, state: State, scope: Scope) -> Tensor:
        """One token (B, 1, C) to (B, 1, C); `state` moves on."""
        raise NotImplementedError


def carried(state: State) -> Carried:
    """`state` as the tensors of a recurrent mixer.

    Raises:
        TypeError: it belongs to another kind of mixer.
    """
    if not isinstance(state, Carried):
        raise TypeError(f"expected the state of a recurrent mixer, got {type(state).__name__}")
    return state


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, H D) to (B, H, T, D)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # type: ignore[no-any-return, no-untyped-call]


def join_heads(x: Tensor) -> Tensor:
    """(B, H, T, D) to (B, T, H D)."""
    return x.transpose(1, 2).flatten(-2)


def token_positions(scope: Scope, length: int, device: torch.device) -> Tensor:
    """Positions (T,) of the tokens at hand."""
    return torch.arange(scope.position, scope.position + length, device=device)

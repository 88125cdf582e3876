"""Positions in the DSL: what tells an attention how far apart a query and a key are.

The relative kinds belong to a mixer; `sinusoidal` and `learned` are added to the embedding.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from frameworks.architecture.node import Node


class LinearScaling(Node):
    """Position interpolation (Chen et al. 2023): positions divided by `factor`."""

    kind: Literal["linear"] = "linear"
    factor: float = Field(2.0, ge=1, le=1024)


class NtkScaling(Node):
    """NTK-aware scaling: theta grows to theta * factor^(dims / (dims - 2)); needs dims of at least 4."""

    kind: Literal["ntk"] = "ntk"
    factor: float = Field(2.0, ge=1, le=1024)


class YarnScaling(Node):
    """YaRN (Peng et al. 2023): a ramp between beta 32 and 1 decides which frequencies are interpolated."""

    kind: Literal["yarn"] = "yarn"
    factor: float = Field(2.0, ge=1, le=1024)
    original_len: int = Field(256, ge=4, le=1 << 20)
    """Tokens of context that `factor` stretches."""


Scaling = Annotated[LinearScaling | NtkScaling | YarnScaling, Field(discriminator="kind")]


class RopePosition(Node):
    """Rotary positions (Su et al. 2021): scores depend on the distance only."""

    kind: Literal["rope"] = "rope"
    theta: float = Field(10_000.0, gt=1, le=1e8)
    dims: int | None = Field(None, ge=2, le=256)
    """Dimensions of a head that are rotated, an even number; None rotates all of them."""
    scaling: Scaling | None = None

    @model_validator(mode="after")
    def _even(self) -> RopePosition:
        if self.dims is not None and self.dims % 2:
            raise ValueError(f"dims={self.dims}: rotations take pairs, so it must be even")
        return self


class XposPosition(Node):
    """xPos (Sun et al. 2022): rotary positions with a decay in the distance."""

    kind: Literal["xpos"] = "xpos"
    theta: float = Field(10_000.0, gt=1, le=1e8)
    scale_base: float = Field(512.0, ge=16, le=65_536)
    """Tokens over which the decay works; smaller forgets sooner."""


class AlibiPosition(Node):
    """ALiBi (Press et al. 2021): a penalty linear in the distance, a slope for each head."""

    kind: Literal["alibi"] = "alibi"
    slope: float = Field(1.0, gt=0, le=64)
    """Multiplies the slopes 2^(-8 h / H)."""


class RelativeBiasPosition(Node):
    """Learned bias by bucket of distance (Raffel et al. 2020)."""

    kind: Literal["relbias"] = "relbias"
    buckets: int = Field(16, ge=2, le=256)
    max_distance: int = Field(128, ge=2, le=1 << 16)
    """Distances from here on share the last bucket; must exceed half the buckets."""

    @model_validator(mode="after")
    def _ordered(self) -> RelativeBiasPosition:
        if self.max_distance <= self.buckets // 2:
            raise ValueError(f"max_distance={self.max_distance} must exceed buckets // 2 = {self.buckets // 2}")
        return self


Position = Annotated[
    RopePosition | XposPosition | AlibiPosition | RelativeBiasPosition,
    Field(discriminator="kind"),
]


class SinusoidalPositions(Node):
    """Fixed sines and cosines added to the embedding (Vaswani et al. 2017)."""

    kind: Literal["sinusoidal"] = "sinusoidal"
    amplitude: float = Field(0.1, gt=0, le=10)


class LearnedPositions(Node):
    """A learned vector for each position, added to the embedding; longer sequences are an error."""

    kind: Literal["learned"] = "learned"
    max_len: int = Field(512, ge=1, le=1 << 16)


AbsolutePosition = Annotated[SinusoidalPositions | LearnedPositions, Field(discriminator="kind")]

"""Mixers in the DSL: what moves information along the sequence.

Letters: C model width, H heads, D head width, G key/value heads.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from frameworks.architecture.node import Node
from frameworks.architecture.position import NtkScaling, Position, RopePosition

Width = Annotated[int, Field(ge=1, le=256)]


class LocalStencil(Node):
    """Keys j in (i - window, i]."""

    kind: Literal["local"] = "local"
    window: int = Field(64, ge=1, le=1 << 16)


class DilatedStencil(Node):
    """Keys whose distance is a multiple of `dilation`."""

    kind: Literal["dilated"] = "dilated"
    dilation: int = Field(2, ge=2, le=1024)


class BlockStencil(Node):
    """Keys of the query's own block."""

    kind: Literal["block"] = "block"
    block: int = Field(64, ge=1, le=1 << 16)


class RingStencil(Node):
    """Keys of the query's own block and the one before it."""

    kind: Literal["ring"] = "ring"
    block: int = Field(64, ge=1, le=1 << 16)


class HybridStencil(Node):
    """The first `sinks` keys of the sequence and the last `window`."""

    kind: Literal["hybrid"] = "hybrid"
    sinks: int = Field(4, ge=1, le=1024)
    window: int = Field(64, ge=1, le=1 << 16)


Stencil = Annotated[
    LocalStencil | DilatedStencil | BlockStencil | RingStencil | HybridStencil, Field(discriminator="kind")
]
Quantisation = Literal["none", "fp8", "int8", "nf4"]


class FullCache(Node):
    """Keys and values of every token."""

    kind: Literal["full"] = "full"
    quant: Quantisation = "none"


class WindowCache(Node):
    """Keys and values of the last `window` tokens, growing up to it; training sees the same window."""

    kind: Literal["window"] = "window"
    window: int = Field(128, ge=1, le=1 << 16)
    quant: Quantisation = "none"


class RingCache(Node):
    """As `window`, in a ring that is allocated whole at the start."""

    kind: Literal["ring"] = "ring"
    window: int = Field(128, ge=1, le=1 << 16)
    quant: Quantisation = "none"


class LatentCache(Node):
    """One low-rank vector a token, from which keys and values are made (DeepSeek-AI 2024)."""

    kind: Literal["latent"] = "latent"
    rank: int = Field(16, ge=1, le=1024)
    quant: Quantisation = "none"


class NoCache(Node):
    """Nothing is kept: decoding computes the whole prefix again at every token."""

    kind: Literal["none"] = "none"


KvPolicy = Annotated[FullCache | WindowCache | RingCache | LatentCache | NoCache, Field(discriminator="kind")]


class AttentionMixer(Node):
    """Softmax attention with grouped key/value heads (Ainslie et al. 2023)."""

    kind: Literal["attention"] = "attention"
    heads: int = Field(4, ge=1, le=64)
    groups: int = Field(4, ge=1, le=64)
    """Key/value heads G: equal to `heads` is multi-head, 1 is multi-query; must divide `heads`."""
    head_dim: Width = 16
    stencils: tuple[Stencil, ...] = Field((), max_length=3)
    """Combined by AND with each other and with causality; none sees all of the past."""
    qk_norm: Literal["none", "rms", "layer"] = "none"
    qk_scale: float | None = Field(None, gt=0, le=64)
    """Scores are multiplied by it; None is 1 / sqrt(D)."""
    softcap: float | None = Field(None, gt=0, le=1000)
    """Scores s become c tanh(s / c)."""
    pos: Position | None = None
    kv: KvPolicy = FullCache()

    @model_validator(mode="after")
    def _fits(self) -> AttentionMixer:
        if self.heads % self.groups:
            raise ValueError(f"groups={self.groups} does not divide heads={self.heads}")
        _check_rope(self.pos, self.head_dim)
        return self


class RetentionMixer(Node):
    """Retention (Sun et al. 2023): S_n = g S_(n-1) + k_n^T v_n with g_h = 1 - 2^(-decay_shift - h)."""

    kind: Literal["retention"] = "retention"
    heads: int = Field(4, ge=1, le=64)
    head_dim: Width = 16
    decay_shift: int = Field(5, ge=1, le=10)
    gate: bool = True
    """A SiLU gate from the input on the output."""
    pos: RopePosition | None = None
    chunk: int | None = Field(None, ge=8, le=1024)
    """Tokens a chunk; None takes the faster form for the length at hand."""

    @model_validator(mode="after")
    def _fits(self) -> RetentionMixer:
        _check_rope(self.pos, self.head_dim)
        return self


class LinearMixer(Node):
    """Linear attention (Katharopoulos et al. 2020) with its normaliser."""

    kind: Literal["linear"] = "linear"
    heads: int = Field(4, ge=1, le=64)
    head_dim: Width = 16
    feature_map: Literal["elu", "exp", "squared_relu"] = "elu"
    chunk: int | None = Field(None, ge=8, le=1024)


class SsmMixer(Node):
    """Mamba-2's state space duality (Dao & Gu 2024): one input-dependent scalar decay a head, shared B and C."""

    kind: Literal["ssm"] = "ssm"
    d_state: int = Field(16, ge=1, le=256)
    expand: int = Field(2, ge=1, le=4)
    """Inner width in model widths; `head_dim` must divide it."""
    head_dim: Width = 16
    conv_kernel: int = Field(4, ge=1, le=8)
    """Width of the causal short convolution; 1 is a learned scale."""
    chunk: int | None = Field(None, ge=8, le=1024)


class DeltaMixer(Node):
    """Gated delta rule (Yang et al. 2024): S_t = a_t S_(t-1) (I - b_t k k^T) + b_t v k^T."""

    kind: Literal["delta"] = "delta"
    heads: int = Field(4, ge=1, le=64)
    head_dim: Width = 16
    gated: bool = True
    """False keeps a_t = 1, the plain delta rule."""
    conv_kernel: int = Field(4, ge=1, le=8)
    chunk: int | None = Field(None, ge=8, le=128)


class LongConvMixer(Node):
    """A gated depthwise causal convolution over `kernel_len` tokens (Poli et al. 2023, with an explicit kernel)."""

    kind: Literal["longconv"] = "longconv"
    kernel_len: int = Field(32, ge=2, le=1024)
    gate: bool = True


Mixer = Annotated[
    AttentionMixer | RetentionMixer | LinearMixer | SsmMixer | DeltaMixer | LongConvMixer,
    Field(discriminator="kind"),
]


def _check_rope(pos: object, head_dim: int) -> None:
    if pos is not None and getattr(pos, "kind", None) in ("rope", "xpos") and head_dim % 2:
        raise ValueError(f"head_dim={head_dim}: rotations take pairs, so it must be even")
    if not isinstance(pos, RopePosition):
        return
    dims = head_dim if pos.dims is None else pos.dims
    if dims > head_dim:
        raise ValueError(f"pos.dims={dims} exceeds head_dim={head_dim}")
    if isinstance(pos.scaling, NtkScaling) and dims < 4:
        raise ValueError(f"ntk scaling needs at least 4 rotated dims, got {dims}")

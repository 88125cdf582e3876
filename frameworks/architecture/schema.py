"""The architecture DSL: one YAML file is one architecture and how it is trained.

`modules` are templates; `pipeline` builds them into stages, each with weights of its own. A stage reads the sum
of its `inputs`. An `encoder` stage sees the future, so only a `latent_sampler` may read it: there the objective
pays for what it learns of the future, and it is left out when the model is used (Fleuret 2025).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from frameworks.architecture.mixer import AttentionMixer, Mixer
from frameworks.architecture.node import Node
from frameworks.architecture.position import AbsolutePosition, SinusoidalPositions

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,39}$")]


class Norm(Node):
    """RMSNorm (Zhang & Sennrich 2019), LayerNorm, or ScaleNorm (Nguyen & Salazar 2019)."""

    kind: Literal["rmsnorm", "layernorm", "scalenorm"] = "rmsnorm"
    eps: float = Field(1e-5, gt=0, le=0.1)


class Router(Node):
    """Top-k softmax(logits / temp), its weights summing to 1, with a balance loss (Fedus et al. 2021)."""

    top_k: int = Field(1, ge=1, le=16)
    temp: float = Field(1.0, ge=0.05, le=20)
    balance: float = Field(0.01, ge=0, le=10)
    """Weight of E sum_i f_i P_i in the training loss."""


class SingleUnit(Node):
    """One mixer."""

    kind: Literal["single"] = "single"
    mixer: Mixer = AttentionMixer()


class ParallelUnit(Node):
    """Several mixers at once, merged by sum, by a learned weighted sum, or by concatenation and a projection."""

    kind: Literal["par"] = "par"
    mixers: tuple[Mixer, ...] = Field(min_length=2, max_length=4)
    merge: Literal["add", "weighted_add", "concat"] = "add"


class RoutedUnit(Node):
    """Several mixers, of which each token reads its top-k. All keep their state, so all are computed."""

    kind: Literal["route"] = "route"
    mixers: tuple[Mixer, ...] = Field(min_length=2, max_length=4)
    router: Router = Router()

    @model_validator(mode="after")
    def _fits(self) -> RoutedUnit:
        if self.router.top_k > len(self.mixers):
            raise ValueError(f"router.top_k={self.router.top_k} exceeds the {len(self.mixers)} mixers")
        return self


MixUnit = Annotated[SingleUnit | ParallelUnit | RoutedUnit, Field(discriminator="kind")]
Activation = Literal["gelu", "relu2", "silu", "swiglu", "geglu"]


class DenseFfn(Node):
    """C -> d_ff -> C; the gated activations have a third matrix."""

    kind: Literal["dense"] = "dense"
    d_ff: int = Field(256, ge=1, le=16_384)
    activation: Activation = "gelu"


class MoeFfn(Node):
    """`experts` feed-forwards of which each token uses `router.top_k`; the others are not computed."""

    kind: Literal["moe"] = "moe"
    experts: int = Field(4, ge=2, le=64)
    d_ff: int = Field(128, ge=1, le=16_384)
    activation: Activation = "gelu"
    shared: bool = False
    """One more expert that every token uses."""
    router: Router = Router()

    @model_validator(mode="after")
    def _fits(self) -> MoeFfn:
        if self.router.top_k > self.experts:
            raise ValueError(f"router.top_k={self.router.top_k} exceeds experts={self.experts}")
        return self


Ffn = Annotated[DenseFfn | MoeFfn, Field(discriminator="kind")]


class Residual(Node):
    """How a layer's branches join its stream."""

    placement: Literal["pre", "post", "sandwich"] = "pre"
    """Norm before the branch, after the sum, or before and after the branch."""
    parallel: bool = False
    """Mixer and feed-forward read the same input."""
    gain: float = Field(1.0, gt=0, le=4)
    """Branches are multiplied by it."""


class Condition(Node):
    """How another stage steers this module; every op is the identity at initialisation."""

    source: Name
    """An earlier stage."""
    ops: tuple[Literal["film", "add", "scale", "lora"], ...] = Field(("film",), min_length=1, max_length=4)
    where: tuple[Literal["mixer", "ffn"], ...] = Field(("mixer",), min_length=1, max_length=2)
    """The branches whose input is steered."""
    rank: int = Field(4, ge=1, le=64)
    """Rank of `lora`, and of the projection that the other ops share."""

    @model_validator(mode="after")
    def _once(self) -> Condition:
        for name, values in (("ops", self.ops), ("where", self.where)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name}={list(values)} names one twice")
        return self


class Recurrence(Node):
    """The module's layers run `loops` times with the same weights."""

    loops: int = Field(2, ge=2, le=8)
    inject: bool = True
    """The module's input is added again before each further loop."""


class Hierarchy(Node):
    """The layers run on one summary for each whole group of `stride` tokens; a token reads whole groups only."""

    stride: int = Field(2, ge=2, le=64)
    pool: Literal["mean", "last"] = "mean"


class TransformerModule(Node):
    """Layers of a mix unit and a feed-forward."""

    kind: Literal["transformer"] = "transformer"
    n_layers: int = Field(2, ge=1, le=96)
    mix_unit: MixUnit = SingleUnit()
    ffn: Ffn | None = DenseFfn()
    norm: Norm = Norm()
    residual: Residual = Residual()
    cond: Condition | None = None
    recurrence: Recurrence | None = None
    hierarchy: Hierarchy | None = None
    depth_router: Router | None = None
    """Each token uses the feed-forwards of its top-k layers; the others are not computed."""

    @model_validator(mode="after")
    def _fits(self) -> TransformerModule:
        if self.depth_router is not None:
            if self.ffn is None:
                raise ValueError("depth_router chooses among feed-forwards, and ffn is null")
            if self.depth_router.top_k >= self.n_layers:
                raise ValueError(f"depth_router.top_k={self.depth_router.top_k} must be below n_layers={self.n_layers}")
        if self.ffn is None:
            if self.residual.parallel:
                raise ValueError("residual.parallel needs a feed-forward, and ffn is null")
            if self.cond is not None and "ffn" in self.cond.where:
                raise ValueError("cond.where names 'ffn', and ffn is null")
        return self

    @property
    def mixers(self) -> tuple[Mixer, ...]:
        """The mixers of one layer."""
        return (self.mix_unit.mixer,) if isinstance(self.mix_unit, SingleUnit) else self.mix_unit.mixers


class LatentSamplerModule(Node):
    """Binary latents a token: the posterior from an encoder in training, uniform when the model is used."""

    kind: Literal["latent_sampler"] = "latent_sampler"
    bits: int = Field(8, ge=1, le=16)
    code: Literal["joint", "factored"] = "factored"
    """`joint`: a vector for each of 2^bits values (at most 10 bits); `factored`: one for each bit."""
    free_bits: float = Field(0.5, ge=0, le=16)
    """kappa: nats of KL a token that cost nothing."""

    @model_validator(mode="after")
    def _fits(self) -> LatentSamplerModule:
        if self.code == "joint" and self.bits > 10:
            raise ValueError(f"bits={self.bits} with code 'joint' needs 2^{self.bits} vectors; allowed: at most 10")
        return self


Module = Annotated[TransformerModule | LatentSamplerModule, Field(discriminator="kind")]


class Stage(Node):
    """One step of the pipeline."""

    name: Name
    module: Name
    repeat: int = Field(1, ge=1, le=16)
    """The module this many times in a row, each with its own weights."""
    mode: Literal["causal", "encoder"] = "causal"
    inputs: tuple[Name, ...] | None = None
    """Earlier stages to sum ("embedding" is the first); null is the stage before, empty a learned vector."""
    kv_from: Name | None = None
    """An earlier stage whose last layer's keys and values this stage's attention reads instead of its own."""
    mem_from: Name | None = None
    """An earlier stage from whose output this stage's attention makes its keys and values."""


class Embedding(Node):
    """Token vectors; `pos` is added to them."""

    pos: AbsolutePosition | None = SinusoidalPositions()
    norm: Norm | None = None


class Readout(Node):
    """From the last stage to logits."""

    tied: bool = True
    """The head is the embedding."""
    norm: Norm = Norm()
    softcap: float | None = Field(None, gt=0, le=1000)


class Arch(Node):
    """The model."""

    d_model: int = Field(64, ge=1, le=8192)
    embedding: Embedding = Embedding()
    readout: Readout = Readout()
    modules: dict[Name, Module] = Field(min_length=1, max_length=16)
    pipeline: tuple[Stage, ...] = Field(min_length=1, max_length=16)

    @model_validator(mode="after")
    def _fits(self) -> Arch:
        from frameworks.architecture.wiring import check_wiring

        check_wiring(self)
        return self


class TrainSettings(Node):
    """How the architecture is trained; the search's budget decides for how long."""

    seq_len: int = Field(64, ge=1, le=1 << 20)
    batch_size: int = Field(4, ge=1, le=4096)
    lr: float = Field(3e-3, gt=0, le=1)
    weight_decay: float = Field(0.0, ge=0, le=10)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    clip: float = Field(1.0, ge=0, le=1e6)
    """Largest norm of the gradient; 0 switches clipping off."""
    warmup_fraction: float = Field(0.1, ge=0, le=1)
    schedule: Literal["cosine", "constant"] = "cosine"
    precision: Literal["fp32", "bf16"] = "fp32"


class Architecture(Node):
    """A whole file of the DSL."""

    name: Name
    arch: Arch
    train: TrainSettings = TrainSettings()

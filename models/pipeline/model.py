"""An architecture of the DSL, built: tokens to logits, whole sequences or token by token.

With latents, `posterior` says where they come from: the encoder stages, which see the future, or the prior, which is
how the model is used and the only way it may be compared. Initial weights are drawn by parameter name, so two
architectures with the same seed start from the same values wherever name and shape agree.

Letters: B batch, T tokens, C model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from data.keyed_random import torch_generator
from frameworks.architecture.mixer import AttentionMixer, NoCache
from frameworks.architecture.position import LearnedPositions
from frameworks.architecture.schema import Arch, LatentSamplerModule, Stage, TransformerModule
from frameworks.architecture.wiring import EMBEDDING, inputs_of
from models.pipeline.latent import LatentSampler
from models.pipeline.normalization import build_norm
from models.pipeline.scope import Keys, Routing, Scope
from models.pipeline.stack import Stack, StackState
from models.transformer import sinusoidal_positions


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One forward pass.

    Attributes:
        hidden: features after the readout's norm (B, T, C).
        loss: balance and latent losses, to be added to the cross-entropy.
        kl: nats a token of the posterior beyond the prior; None without a posterior.
        routing: what each router did.
    """

    hidden: Tensor
    loss: Tensor
    kl: Tensor | None
    routing: list[Routing]


@dataclass(kw_only=True)
class DecodeState:
    """What decoding carries: stages' states, or the tokens themselves where a mixer keeps no cache."""

    position: int = 0
    stages: dict[str, list[StackState]] = field(default_factory=dict)
    tokens: list[Tensor] | None = None

    def kv_bytes(self) -> int:
        """Bytes of key/value caches."""
        return sum(stack.kv_bytes() for stacks in self.stages.values() for stack in stacks)

    def state_bytes(self) -> int:
        """Bytes of all other states."""
        return sum(stack.state_bytes() for stacks in self.stages.values() for stack in stacks)


class BuiltStage(nn.Module):
    """One transformer stage: copies of its module in a row, from the sum of its inputs or a learned vector."""

    def __init__(self, stage: Stage, module: TransformerModule, d_model: int, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.stage = stage
        self.condition = None if module.cond is None else module.cond.source
        self.inputs = inputs
        owns_keys = stage.kv_from is None
        self.stacks = nn.ModuleList(Stack(module, d_model, owns_keys=owns_keys) for _ in range(stage.repeat))
        self.query = nn.Parameter(torch.zeros(d_model)) if not inputs else None


class PipelineModel(nn.Module):
    """The model of an architecture.

    Args:
        arch: the model part of an architecture.
        vocab_size: V.
        seed: decides the initial weights.
    """

    def __init__(self, arch: Arch, *, vocab_size: int, seed: int = 0) -> None:
        super().__init__()
        self.arch = arch
        self.vocab_size = vocab_size
        d_model = arch.d_model
        with torch.random.fork_rng(devices=[]):
            self.embedding = nn.Embedding(vocab_size, d_model)
            pos = arch.embedding.pos
            self.learned = (
                nn.Parameter(torch.zeros(pos.max_len, d_model)) if isinstance(pos, LearnedPositions) else None
            )
            self.embedding_norm = None if arch.embedding.norm is None else build_norm(arch.embedding.norm, d_model)
            self.stages = nn.ModuleDict()
            for index, stage in enumerate(arch.pipeline):
                module = arch.modules[stage.module]
                if isinstance(module, LatentSamplerModule):
                    self.stages[f"stage_{index}"] = LatentSampler(module, d_model)
                else:
                    self.stages[f"stage_{index}"] = BuiltStage(stage, module, d_model, inputs_of(arch, index))
            self.norm = build_norm(arch.readout.norm, d_model)
            self.head = None if arch.readout.tied else nn.Linear(d_model, vocab_size, bias=False)
        self.has_latents = any(isinstance(stage, LatentSampler) for stage in self.stages.values())
        self.caches = not any(
            isinstance(mixer, AttentionMixer) and isinstance(mixer.kv, NoCache) for mixer in _mixers(arch)
        )
        self._draw(seed)

    def run(self, tokens: Tensor, *, posterior: bool = False, sample: int = 0) -> Pass:
        """tokens (B, T) int64 through all stages.

        Args:
            tokens: the inputs.
            posterior: latents from the encoder stages (training); they see the future.
            sample: which draw of the latents.

        Raises:
            ValueError: more tokens than learned positions.
        """
        scope = Scope(sample=sample)
        x = self._embed(tokens, 0)
        outputs, keys = {EMBEDDING: x}, dict[str, Keys | None]()
        for spec, built in self._built():
            if spec.mode == "encoder" and not posterior:
                continue
            scope.place = f"{spec.name}."
            if isinstance(built, LatentSampler):
                if posterior:
                    read = inputs_of(self.arch, self.arch.pipeline.index(spec))
                    outputs[spec.name] = built.posterior(_sum(outputs, read), scope)
                else:
                    outputs[spec.name] = built.prior(tokens.shape[0], tokens.shape[1], scope)
                continue
            x = self._stage_input(built, outputs, tokens.shape[1])
            self._open(built, outputs, keys, scope)
            for stack in built.stacks:
                x = stack(x, scope)
            outputs[spec.name], keys[spec.name] = x, scope.published
        zero = x.new_zeros(())
        loss = torch.stack(scope.losses).sum() if scope.losses else zero
        kl = torch.stack(scope.kl).sum() if scope.kl else None
        return Pass(hidden=self.norm(x), loss=loss, kl=kl, routing=scope.routing)

    def logits(self, hidden: Tensor) -> Tensor:
        """Features (..., C) to logits (..., V)."""
        logits = F.linear(hidden, self.embedding.weight if self.head is None else self.head.weight)
        cap = self.arch.readout.softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) int64 to logits (B, T, V) of each next token, latents from the prior."""
        return self.logits(self.run(tokens).hidden)

    def loss(self, tokens: Tensor, targets: Tensor, *, sample: int = 0) -> tuple[Tensor, Tensor]:
        """The training loss and the cross-entropy in it, nats a token; latents come from the posterior."""
        done = self.run(tokens, posterior=self.has_latents, sample=sample)
        cross_entropy = F.cross_entropy(self.logits(done.hidden).flatten(0, 1).float(), targets.flatten())
        return cross_entropy + done.loss, cross_entropy

    def begin(self, batch: int) -> DecodeState:
        """The state before the first token."""
        if not self.caches:
            return DecodeState(tokens=[])
        like = self.embedding.weight[:1]
        stages = {
            spec.name: [stack.begin(batch, like) for stack in built.stacks if isinstance(stack, Stack)]
            for spec, built in zip(self.arch.pipeline, self.stages.values(), strict=True)
            if isinstance(built, BuiltStage) and spec.mode != "encoder"
        }
        return DecodeState(stages=stages)

    def step(self, tokens: Tensor, state: DecodeState, *, sample: int = 0) -> Tensor:
        """The next tokens (B, 1) to logits (B, V); `state` moves on. Latents come from the prior."""
        if state.tokens is not None:
            state.tokens.append(tokens)
            state.position += 1
            return self.logits(self.run(torch.cat(state.tokens, 1), sample=sample).hidden[:, -1])
        scope = Scope(sample=sample, position=state.position)
        x = self._embed(tokens, state.position)
        outputs, keys = {EMBEDDING: x}, dict[str, Keys | None]()
        for spec, built in self._built():
            if spec.mode == "encoder":
                continue
            if isinstance(built, LatentSampler):
                outputs[spec.name] = built.prior(tokens.shape[0], 1, scope)
                continue
            x = self._stage_input(built, outputs, 1)
            self._open(built, outputs, keys, scope)
            for stack, held in zip(built.stacks, state.stages[spec.name], strict=True):
                if not isinstance(stack, Stack):
                    raise TypeError(f"stage {spec.name} holds a {type(stack).__name__}")
                x = stack.step(x, held, scope)
            outputs[spec.name], keys[spec.name] = x, scope.published
        state.position += 1
        return self.logits(self.norm(x)[:, -1])

    def decode(self, tokens: Tensor, *, sample: int = 0) -> tuple[Tensor, DecodeState]:
        """tokens (B, T) one by one to logits (B, T, V), and the state after the last."""
        state = self.begin(tokens.shape[0])
        logits = [self.step(tokens[:, t : t + 1], state, sample=sample) for t in range(tokens.shape[1])]
        return torch.stack(logits, 1), state

    def n_parameters(self) -> int:
        """Number of parameters, the embedding included."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _built(self) -> Iterator[tuple[Stage, LatentSampler | BuiltStage]]:
        for spec, built in zip(self.arch.pipeline, self.stages.values(), strict=True):
            if not isinstance(built, LatentSampler | BuiltStage):
                raise TypeError(f"stage {spec.name} is a {type(built).__name__}")
            yield spec, built

    def _embed(self, tokens: Tensor, start: int) -> Tensor:
        x = self.embedding(tokens)
        end = start + tokens.shape[1]
        pos = self.arch.embedding.pos
        if self.learned is not None:
            if end > self.learned.shape[0]:
                raise ValueError(
                    f"{end} tokens exceed the learned positions, embedding.pos.max_len={len(self.learned)}"
                )
            x = x + self.learned[start:end]
        elif pos is not None and not isinstance(pos, LearnedPositions):
            signal = sinusoidal_positions(end, self.arch.d_model)[start:]
            x = x + pos.amplitude * signal.to(x)
        return x if self.embedding_norm is None else self.embedding_norm(x)  # type: ignore[no-any-return]

    def _stage_input(self, built: BuiltStage, outputs: dict[str, Tensor], length: int) -> Tensor:
        if built.query is not None:
            return built.query.expand(outputs[EMBEDDING].shape[0], length, -1)
        return _sum(outputs, built.inputs)

    def _open(self, built: BuiltStage, outputs: dict[str, Tensor], keys: dict[str, Keys | None], scope: Scope) -> None:
        stage = built.stage
        scope.causal = stage.mode == "causal"
        scope.memory = None if stage.mem_from is None else outputs[stage.mem_from]
        scope.shared = None if stage.kv_from is None else keys[stage.kv_from]
        scope.condition = None if built.condition is None else outputs[built.condition]
        scope.published = None

    @torch.no_grad()
    def _draw(self, seed: int) -> None:
        depth = sum(len(stack.layers) * stack.n_loops for stack in self.modules() if isinstance(stack, Stack))
        residual = (2 * max(1, depth)) ** -0.5
        for name, parameter in self.named_parameters():
            if ".zero_" in name:
                parameter.zero_()
            elif parameter.ndim >= 2 or name.endswith("query"):
                std = _std(name, parameter) * (
                    residual if name.endswith(("out_proj.weight", "down_proj.weight")) else 1
                )
                parameter.normal_(0.0, std, generator=torch_generator("pipeline", seed, name))


def _std(name: str, parameter: nn.Parameter) -> float:
    if name == "embedding.weight" or name.endswith(("learned", "query", ".code", ".bias")):
        return 0.02 if name.endswith(("learned", ".bias")) else 0.1
    if name.endswith("conv.weight"):
        return float(parameter.shape[-1] ** -0.5)
    if name.endswith("router_proj.weight"):
        return float(0.1 * parameter.shape[-1] ** -0.5)
    return float((3 * parameter.shape[-1]) ** -0.5)


def _sum(outputs: dict[str, Tensor], names: tuple[str, ...]) -> Tensor:
    first, *rest = (outputs[name] for name in names)
    return first if not rest else torch.stack([first, *rest]).sum(0)


def _mixers(arch: Arch) -> list[object]:
    modules = (arch.modules[stage.module] for stage in arch.pipeline)
    return [mixer for module in modules if isinstance(module, TransformerModule) for mixer in module.mixers]

"""One layer: a unit of mixers and a feed-forward, joined to the stream as `residual` says.

Letters: B batch, T tokens, C model width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from frameworks.architecture.mixer import (
    AttentionMixer,
    DeltaMixer,
    LinearMixer,
    LongConvMixer,
    Mixer,
    RetentionMixer,
)
from frameworks.architecture.schema import ParallelUnit, RoutedUnit, TransformerModule
from models.pipeline.attention import Attention
from models.pipeline.conditioning import Conditioning
from models.pipeline.feed_forward import build_feed_forward
from models.pipeline.normalization import build_norm
from models.pipeline.recurrent_mixers import DeltaRule, LinearAttention, LongConvolution, Retention, StateSpace
from models.pipeline.router import TokenRouter
from models.pipeline.scope import Scope, SequenceMixer, State

LayerState = list[State]
_Run = Callable[[Tensor], Tensor]


def build_mixer(spec: Mixer, d_model: int, *, owns_keys: bool = True) -> SequenceMixer:
    """The mixer that `spec` describes; `owns_keys` False reads another stage's keys (attention only)."""
    if isinstance(spec, AttentionMixer):
        return Attention(spec, d_model, owns_keys=owns_keys)
    if isinstance(spec, RetentionMixer):
        return Retention(spec, d_model)
    if isinstance(spec, LinearMixer):
        return LinearAttention(spec, d_model)
    if isinstance(spec, DeltaMixer):
        return DeltaRule(spec, d_model)
    return LongConvolution(spec, d_model) if isinstance(spec, LongConvMixer) else StateSpace(spec, d_model)


class Unit(nn.Module):
    """The mixers of one layer: one, several merged, or several of which each token reads its top-k."""

    def __init__(self, module: TransformerModule, d_model: int, *, owns_keys: bool) -> None:
        super().__init__()
        self.mixers = nn.ModuleList(build_mixer(spec, d_model, owns_keys=owns_keys) for spec in module.mixers)
        unit = module.mix_unit
        self.merge = unit.merge if isinstance(unit, ParallelUnit) else "add"
        count = len(self.mixers)
        self.router = TokenRouter(unit.router, d_model, count, "mixers") if isinstance(unit, RoutedUnit) else None
        if self.merge == "weighted_add":
            self.weights = nn.Parameter(torch.full((count,), 1.0 / count))
        if self.merge == "concat":
            self.merge_proj = nn.Linear(count * d_model, d_model, bias=False)

    def forward(self, x: Tensor, scope: Scope, states: LayerState | None = None) -> Tensor:
        """Map (B, T, C) to (B, T, C); with `states`, one token (B, 1, C), and the states move on."""
        outputs = []
        for index, mixer in enumerate(self.mixers):
            if not isinstance(mixer, SequenceMixer):
                raise TypeError(f"mixer {index} is a {type(mixer).__name__}")
            outputs.append(mixer(x, scope) if states is None else mixer.step(x, states[index], scope))
        if self.router is not None:
            weights = self.router.dense(*self.router(x, scope))  # (B, T, M)
            return (torch.stack(outputs, -1) @ weights.unsqueeze(-1)).squeeze(-1)
        if self.merge == "concat":
            merged: Tensor = self.merge_proj(torch.cat(outputs, -1))
            return merged
        if self.merge == "weighted_add":
            return (torch.stack(outputs, -1) * self.weights).sum(-1)
        return outputs[0] if len(outputs) == 1 else torch.stack(outputs).sum(0)

    def begin(self, batch: int) -> LayerState:
        """The states of all mixers before the first token."""
        return [mixer.begin(batch) for mixer in self.mixers if isinstance(mixer, SequenceMixer)]


class Layer(nn.Module):
    """A unit and a feed-forward.

    Args:
        module: the transformer module of the DSL.
        d_model: C.
        owns_keys: see `build_mixer`.
    """

    def __init__(self, module: TransformerModule, d_model: int, *, owns_keys: bool) -> None:
        super().__init__()
        self.residual = module.residual
        self.unit = Unit(module, d_model, owns_keys=owns_keys)
        self.feed_forward = None if module.ffn is None else build_feed_forward(module.ffn, d_model)
        branches = ["mixer"] + (["ffn"] if module.ffn is not None else [])
        self.norms = nn.ModuleDict()
        for name in branches:
            if not (self.residual.placement == "post" and self.residual.parallel and name == "ffn"):
                self.norms[name] = build_norm(module.norm, d_model)
            if self.residual.placement == "sandwich":
                self.norms[f"{name}_after"] = build_norm(module.norm, d_model)
        self.conditions = nn.ModuleDict()
        if module.cond is not None:
            for name in module.cond.where:
                self.conditions[name] = Conditioning(module.cond, d_model)

    def forward(self, x: Tensor, scope: Scope, states: LayerState | None = None, depth: Tensor | None = None) -> Tensor:
        """Map (B, T, C) to (B, T, C).

        Args:
            x: the stream.
            scope: what the layer sees beside it.
            states: of the mixers, for one token at a time.
            depth: this layer's weight for each token (B, T, 1), zero where its feed-forward is skipped.
        """
        mixed = self._branch("mixer", x, lambda h: self.unit(h, scope, states), scope)
        if self.feed_forward is None:
            return self._joined("mixer", x + mixed)
        if self.residual.parallel:
            steered = self._branch("ffn", x, lambda h: self._fed(h, scope, depth), scope)
            return self._joined("mixer", x + mixed + steered)
        x = self._joined("mixer", x + mixed)
        return self._joined("ffn", x + self._branch("ffn", x, lambda h: self._fed(h, scope, depth), scope))

    def _branch(self, name: str, x: Tensor, run: _Run, scope: Scope) -> Tensor:
        placement = self.residual.placement
        h = x if placement == "post" else self.norms[name](x)
        if name in self.conditions and scope.condition is not None:
            h = self.conditions[name](h, scope.condition)
        y = run(h)
        if placement == "sandwich":
            y = self.norms[f"{name}_after"](y)
        return y * self.residual.gain

    def _joined(self, name: str, x: Tensor) -> Tensor:
        return self.norms[name](x) if self.residual.placement == "post" else x

    def _fed(self, h: Tensor, scope: Scope, depth: Tensor | None) -> Tensor:
        if self.feed_forward is None:
            raise ValueError("the layer has no feed-forward")
        if depth is None:
            fed: Tensor = self.feed_forward(h, scope)
            return fed
        rows, weights = h.flatten(0, -2), depth.flatten()  # (B T, C), (B T,)
        chosen = weights.nonzero().squeeze(-1)
        y = torch.zeros_like(rows)
        if chosen.numel():
            y = y.index_add(0, chosen, self.feed_forward(rows[chosen], scope) * weights[chosen].unsqueeze(-1))
        return y.view_as(h)

"""A transformer module built: its layers, run in loops, at a coarser rate, or with routed depth.

Letters: B batch, T tokens, C model width, S stride.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from frameworks.architecture.schema import TransformerModule
from models.pipeline.layer import Layer, LayerState
from models.pipeline.router import TokenRouter
from models.pipeline.scope import Carried, Scope


@dataclass(kw_only=True)
class StackState:
    """What a stack carries while decoding: its layers' states for each loop, and its open group of tokens."""

    loops: list[list[LayerState]]
    tokens: int = 0
    pending: Tensor | None = None
    coarse: Tensor | None = None

    def kv_bytes(self) -> int:
        """Bytes of key/value caches."""
        return sum(state.n_bytes() for state in self._states() if not isinstance(state, Carried))

    def state_bytes(self) -> int:
        """Bytes of all other states."""
        own = [tensor for tensor in (self.pending, self.coarse) if tensor is not None]
        held = sum(tensor.numel() * tensor.element_size() for tensor in own)
        return held + sum(state.n_bytes() for state in self._states() if isinstance(state, Carried))

    def _states(self) -> LayerState:
        return [state for loop in self.loops for layer in loop for state in layer]


class Stack(nn.Module):
    """One copy of a transformer module.

    Args:
        module: as in the DSL.
        d_model: C.
        owns_keys: False where the stage reads another's keys.
    """

    def __init__(self, module: TransformerModule, d_model: int, *, owns_keys: bool) -> None:
        super().__init__()
        self.module = module
        self.layers = nn.ModuleList(Layer(module, d_model, owns_keys=owns_keys) for _ in range(module.n_layers))
        router = module.depth_router
        self.depth_router = None if router is None else TokenRouter(router, d_model, module.n_layers, "depth")
        self.n_loops = 1 if module.recurrence is None else module.recurrence.loops
        self.inject = module.recurrence is not None and module.recurrence.inject

    def forward(self, x: Tensor, scope: Scope) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        if self.module.hierarchy is None:
            return self._run(x, scope, None)
        stride = self.module.hierarchy.stride
        groups = x.shape[1] // stride
        if groups == 0:
            return x
        whole = x[:, : groups * stride].unflatten(1, (groups, stride))  # type: ignore[no-untyped-call]  # (B, T / S, S, C)
        pooled = whole.mean(2) if self.module.hierarchy.pool == "mean" else whole[:, :, -1]
        coarse = self._run(pooled, scope, None)
        # Token t reads the newest group that ends at or before t; the first tokens read nothing.
        padded = torch.cat([torch.zeros_like(coarse[:, :1]), coarse], 1)
        index = torch.arange(1, x.shape[1] + 1, device=x.device) // stride
        return x + padded[:, index]

    def begin(self, batch: int, like: Tensor) -> StackState:
        """The state before the first token; `like` gives type and device."""
        units = [layer.unit for layer in self.layers if isinstance(layer, Layer)]
        state = StackState(loops=[[unit.begin(batch) for unit in units] for _ in range(self.n_loops)])
        if self.module.hierarchy is not None:
            state.pending = like.new_zeros(batch, 1, like.shape[-1])
            state.coarse = like.new_zeros(batch, 1, like.shape[-1])
        return state

    def step(self, x: Tensor, state: StackState, scope: Scope) -> Tensor:
        """One token (B, 1, C) to (B, 1, C); `state` moves on."""
        hierarchy = self.module.hierarchy
        if hierarchy is None or state.pending is None or state.coarse is None:
            return self._run(x, scope, state)
        mean = hierarchy.pool == "mean"
        state.pending = state.pending + x / hierarchy.stride if mean else x
        state.tokens += 1
        if state.tokens % hierarchy.stride == 0:
            position, scope.position = scope.position, state.tokens // hierarchy.stride - 1
            state.coarse = self._run(state.pending, scope, state)
            scope.position = position
            state.pending = torch.zeros_like(x)
        return x + state.coarse

    def _run(self, x: Tensor, scope: Scope, state: StackState | None) -> Tensor:
        depth = None
        if self.depth_router is not None:
            weights, index = self.depth_router(x, scope)
            # Times k, so that a uniform choice has weight 1.
            depth = self.depth_router.dense(weights, index) * weights.shape[-1]  # (B, T, n_layers)
        h = x
        for loop in range(self.n_loops):
            if loop and self.inject:
                h = h + x
            for number, layer in enumerate(self.layers):
                states = None if state is None else state.loops[loop][number]
                h = layer(h, scope, states, None if depth is None else depth[..., number])
        return h

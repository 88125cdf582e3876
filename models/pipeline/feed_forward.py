"""Feed-forwards of the DSL: dense, and a mixture whose unchosen experts are not computed.

Letters: N tokens, C model width, F inner width, E experts, K chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from frameworks.architecture.schema import Activation, DenseFfn, Ffn, MoeFfn
from models.pipeline.cost import Cost, matrices
from models.pipeline.router import TokenRouter
from models.pipeline.scope import Scope


class FeedForward(nn.Module):
    """C -> F -> C; the gated activations multiply by a third projection (Shazeer 2020)."""

    def __init__(self, d_model: int, d_ff: int, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.up_proj = nn.Linear(d_model, d_ff, bias=False)
        self.gate_proj = nn.Linear(d_model, d_ff, bias=False) if gated(activation) else None
        self.down_proj = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        h = self.up_proj(x)
        if self.gate_proj is not None:
            gate = self.gate_proj(x)
            h = h * (F.silu(gate) if self.activation == "swiglu" else F.gelu(gate))
        elif self.activation == "relu2":
            h = F.relu(h).square()
        else:
            h = F.gelu(h) if self.activation == "gelu" else F.silu(h)
        down: Tensor = self.down_proj(h)
        return down


class MixtureOfExperts(nn.Module):
    """Each token goes to its top-k experts, and to the shared one where there is one."""

    def __init__(self, spec: MoeFfn, d_model: int) -> None:
        super().__init__()
        self.router = TokenRouter(spec.router, d_model, spec.experts, "experts")
        self.experts = nn.ModuleList(FeedForward(d_model, spec.d_ff, spec.activation) for _ in range(spec.experts))
        self.shared = FeedForward(d_model, spec.d_ff, spec.activation) if spec.shared else None

    def forward(self, x: Tensor, scope: Scope) -> Tensor:
        """Map (..., C) to (..., C)."""
        rows = x.reshape(-1, x.shape[-1])  # (N, C)
        weights, index = self.router(rows, scope)  # (N, K) both
        y = torch.zeros_like(rows) if self.shared is None else self.shared(rows)
        for number, expert in enumerate(self.experts):
            token, slot = (index == number).nonzero(as_tuple=True)
            if token.numel():
                y = y.index_add(0, token, expert(rows[token]) * weights[token, slot].unsqueeze(-1))
        return y.view_as(x)

    def naive(self, x: Tensor, scope: Scope) -> Tensor:
        """Every expert on every token, weighted: the oracle of `forward`."""
        weights, index = self.router(x, scope)
        dense = self.router.dense(weights, index)  # (..., E)
        y = torch.stack([expert(x) for expert in self.experts], -1) @ dense.unsqueeze(-1)
        return y.squeeze(-1) if self.shared is None else y.squeeze(-1) + self.shared(x)


class DenseFeedForward(FeedForward):
    """A dense feed-forward with the interface of the mixture."""

    def forward(self, x: Tensor, scope: Scope | None = None) -> Tensor:
        """Map (..., C) to (..., C)."""
        return super().forward(x)


def build_feed_forward(spec: Ffn, d_model: int) -> DenseFeedForward | MixtureOfExperts:
    """The feed-forward that `spec` describes."""
    if isinstance(spec, MoeFfn):
        return MixtureOfExperts(spec, d_model)
    return DenseFeedForward(d_model, spec.d_ff, spec.activation)


def feed_forward_cost(spec: Ffn, d_model: int, rows: int) -> Cost:
    """What it costs on `rows` tokens."""
    one = (3 if gated(spec.activation) else 2) * d_model * spec.d_ff
    if isinstance(spec, DenseFfn):
        return matrices(one, rows)
    used = spec.router.top_k + (1 if spec.shared else 0)
    held = spec.experts + (1 if spec.shared else 0)
    router = matrices(d_model * spec.experts, rows)
    return router + Cost(parameters=held * one, flops=2 * used * one * rows)


def gated(activation: Activation) -> bool:
    """Whether the activation has a projection of its own."""
    return activation in ("swiglu", "geglu")

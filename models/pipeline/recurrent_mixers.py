"""The mixers with a fixed-size state: retention, linear attention, state space, delta rule, long convolution.

Each is a projection around a core that has its own naive oracle (`decayed_attention`, `delta_rule`,
`convolution`), so the whole sequence, chunks of it and single tokens give the same numbers.

Letters: B batch, T tokens, C model width, H heads, D head width, N state width of the state space.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from frameworks.architecture.mixer import DeltaMixer, LinearMixer, LongConvMixer, RetentionMixer, SsmMixer
from models.pipeline import decayed_attention, delta_rule
from models.pipeline.convolution import CausalConvolution
from models.pipeline.positions import Rotation
from models.pipeline.scope import (
    Carried,
    Scope,
    SequenceMixer,
    State,
    carried,
    join_heads,
    split_heads,
    token_positions,
)


class Retention(SequenceMixer):
    """Retention with fixed decays, normalised a head, and an optional gate (Sun et al. 2023)."""

    log_decay: Tensor

    def __init__(self, spec: RetentionMixer, d_model: int) -> None:
        super().__init__()
        self.spec = spec
        inner = spec.heads * spec.head_dim
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(d_model, inner, bias=False) for _ in range(3))
        self.gate_proj = nn.Linear(d_model, inner, bias=False) if spec.gate else None
        self.out_proj = nn.Linear(inner, d_model, bias=False)
        self.rotation = None if spec.pos is None else Rotation(spec.pos, spec.head_dim)
        decays = [math.log1p(-(2.0 ** -(spec.decay_shift + head))) for head in range(spec.heads)]
        self.register_buffer("log_decay", torch.tensor(decays, dtype=torch.float64), persistent=False)

    def forward(self, x: Tensor, scope: Scope) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        q, k, v = self._signals(x, scope)
        y, _ = decayed_attention.decayed_attention(q, k, v, self.log_decay.to(x.dtype), chunk=self.spec.chunk)
        return self._out(x, y)

    def begin(self, batch: int) -> State:
        """S = 0."""
        width = self.spec.head_dim
        return Carried(tensors={"s": self.out_proj.weight.new_zeros(batch, self.spec.heads, width, width)})

    def step(self, x: Tensor, state: State, scope: Scope) -> Tensor:
        """One token (B, 1, C) to (B, 1, C)."""
        held = carried(state).tensors
        q, k, v = (signal.squeeze(2) for signal in self._signals(x, scope))
        y, held["s"] = decayed_attention.step(q, k, v, self.log_decay.to(x.dtype), held["s"])
        return self._out(x, y.unsqueeze(2))

    def _signals(self, x: Tensor, scope: Scope) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (split_heads(proj(x), self.spec.heads) for proj in (self.q_proj, self.k_proj, self.v_proj))
        if self.rotation is not None:
            positions = token_positions(scope, x.shape[1], x.device)
            q, k = self.rotation(q, positions, is_key=False), self.rotation(k, positions, is_key=True)
        return q, k * self.spec.head_dim**-0.5, v

    def _out(self, x: Tensor, y: Tensor) -> Tensor:
        joined = join_heads(F.rms_norm(y, (self.spec.head_dim,), eps=1e-5))
        if self.gate_proj is not None:
            joined = joined * F.silu(self.gate_proj(x))
        projected: Tensor = self.out_proj(joined)
        return projected


class LinearAttention(SequenceMixer):
    """Linear attention; the normaliser is one more value column that is always 1 (Katharopoulos et al. 2020)."""

    def __init__(self, spec: LinearMixer, d_model: int) -> None:
        super().__init__()
        self.spec = spec
        inner = spec.heads * spec.head_dim
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(d_model, inner, bias=False) for _ in range(3))
        self.out_proj = nn.Linear(inner, d_model, bias=False)

    def forward(self, x: Tensor, scope: Scope) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        q, k, v = self._signals(x)
        y, _ = decayed_attention.decayed_attention(q, k, v, None, chunk=self.spec.chunk)
        return self._out(y)

    def begin(self, batch: int) -> State:
        """S = 0."""
        width = self.spec.head_dim
        return Carried(tensors={"s": self.out_proj.weight.new_zeros(batch, self.spec.heads, width, width + 1)})

    def step(self, x: Tensor, state: State, scope: Scope) -> Tensor:
        """One token (B, 1, C) to (B, 1, C)."""
        held = carried(state).tensors
        q, k, v = (signal.squeeze(2) for signal in self._signals(x))
        y, held["s"] = decayed_attention.step(q, k, v, None, held["s"])
        return self._out(y.unsqueeze(2))

    def _signals(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (split_heads(proj(x), self.spec.heads) for proj in (self.q_proj, self.k_proj, self.v_proj))
        return self._features(q), self._features(k), F.pad(v, (0, 1), value=1.0)

    def _features(self, x: Tensor) -> Tensor:
        if self.spec.feature_map == "elu":
            return F.elu(x) + 1.0
        if self.spec.feature_map == "exp":
            return x.clamp(-8.0, 8.0).exp()
        return F.relu(x).square() + 1e-2  # the floor keeps the normaliser from zero

    def _out(self, y: Tensor) -> Tensor:
        projected: Tensor = self.out_proj(join_heads(y[..., :-1] / (y[..., -1:] + 1e-6)))
        return projected


class StateSpace(SequenceMixer):
    """Mamba-2's mixer: y = C h with h_t = exp(A dt_t) h_{t-1} + dt_t B_t x_t, a skip and a gate (Dao & Gu 2024)."""

    def __init__(self, spec: SsmMixer, d_model: int) -> None:
        super().__init__()
        self.spec = spec
        self.inner = spec.expand * d_model
        self.heads = self.inner // spec.head_dim
        self.in_proj = nn.Linear(d_model, 2 * self.inner + 2 * spec.d_state + self.heads, bias=False)
        self.conv = CausalConvolution(self.inner + 2 * spec.d_state, spec.conv_kernel)
        self.log_rate = nn.Parameter(torch.linspace(-1.0, 1.0, self.heads))
        self.step_bias = nn.Parameter(torch.full((self.heads,), -2.0))
        self.skip = nn.Parameter(torch.ones(self.heads))
        self.norm = nn.Parameter(torch.ones(self.inner))
        self.out_proj = nn.Linear(self.inner, d_model, bias=False)

    def forward(self, x: Tensor, scope: Scope) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        gate, signals, dt = self._projected(x)
        q, k, v, weighted, log_decay = self._signals(self.conv(signals), dt)
        y, _ = decayed_attention.decayed_attention(q, k, weighted, log_decay, chunk=self.spec.chunk)
        return self._out(gate, y, v)

    def begin(self, batch: int) -> State:
        """h = 0, and no inputs yet."""
        width, n = self.spec.head_dim, self.spec.d_state
        held = {"s": self.norm.new_zeros(batch, self.heads, n, width), "past": self.conv.begin(batch)}
        return Carried(tensors=held)

    def step(self, x: Tensor, state: State, scope: Scope) -> Tensor:
        """One token (B, 1, C) to (B, 1, C)."""
        held = carried(state).tensors
        gate, signals, dt = self._projected(x)
        convolved, held["past"] = self.conv.step(signals, held["past"])
        q, k, v, weighted, log_decay = self._signals(convolved, dt)
        y, held["s"] = decayed_attention.step(
            q.squeeze(2), k.squeeze(2), weighted.squeeze(2), log_decay.squeeze(2), held["s"]
        )
        return self._out(gate, y.unsqueeze(2), v)

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = [self.inner, self.inner + 2 * self.spec.d_state, self.heads]
        gate, signals, dt = self.in_proj(x).split(parts, -1)
        return gate, signals, dt

    def _signals(self, convolved: Tensor, dt: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """C, B (B, 1, T, N); values and values times dt (B, H, T, D); log decay (B, H, T)."""
        values, b, c = F.silu(convolved).split([self.inner, self.spec.d_state, self.spec.d_state], -1)  # type: ignore[no-untyped-call]
        v = split_heads(values, self.heads)
        dt = F.softplus(dt + self.step_bias).transpose(1, 2)  # (B, H, T)
        log_decay = -self.log_rate.exp().unsqueeze(-1) * dt
        return c.unsqueeze(1), b.unsqueeze(1), v, v * dt.unsqueeze(-1), log_decay

    def _out(self, gate: Tensor, y: Tensor, v: Tensor) -> Tensor:
        joined = join_heads(y + self.skip[:, None, None] * v) * F.silu(gate)
        projected: Tensor = self.out_proj(F.rms_norm(joined, (self.inner,), self.norm, 1e-5))
        return projected


class DeltaRule(SequenceMixer):
    """The gated delta rule with short convolutions, unit keys and a head norm (Yang et al. 2024)."""

    def __init__(self, spec: DeltaMixer, d_model: int) -> None:
        super().__init__()
        self.spec = spec
        inner = spec.heads * spec.head_dim
        self.in_proj = nn.Linear(d_model, 3 * inner, bias=False)
        self.conv = CausalConvolution(3 * inner, spec.conv_kernel)
        self.rate_proj = nn.Linear(d_model, spec.heads)
        self.keep_proj = nn.Linear(d_model, spec.heads) if spec.gated else None
        self.norm = nn.Parameter(torch.ones(spec.head_dim))
        self.out_proj = nn.Linear(inner, d_model, bias=False)

    def forward(self, x: Tensor, scope: Scope) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        q, k, v = self._signals(self.conv(self.in_proj(x)))
        b, log_decay = self._rates(x)
        y, _ = delta_rule.delta_rule(q, k, v, b, log_decay, chunk=self.spec.chunk)
        return self._out(y)

    def begin(self, batch: int) -> State:
        """S = 0, and no inputs yet."""
        width = self.spec.head_dim
        held = {"s": self.norm.new_zeros(batch, self.spec.heads, width, width), "past": self.conv.begin(batch)}
        return Carried(tensors=held)

    def step(self, x: Tensor, state: State, scope: Scope) -> Tensor:
        """One token (B, 1, C) to (B, 1, C)."""
        held = carried(state).tensors
        convolved, held["past"] = self.conv.step(self.in_proj(x), held["past"])
        q, k, v = (signal.squeeze(2) for signal in self._signals(convolved))
        b, log_decay = self._rates(x)
        decay = None if log_decay is None else log_decay.squeeze(2)
        y, held["s"] = delta_rule.step(q, k, v, b.squeeze(2), decay, held["s"])
        return self._out(y.unsqueeze(2))

    def _signals(self, convolved: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (split_heads(part, self.spec.heads) for part in F.silu(convolved).chunk(3, -1))
        return F.normalize(q, dim=-1), F.normalize(k, dim=-1), v

    def _rates(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        b = torch.sigmoid(self.rate_proj(x)).transpose(1, 2)  # (B, H, T)
        if self.keep_proj is None:
            return b, None
        return b, F.logsigmoid(self.keep_proj(x) + 3.0).transpose(1, 2)

    def _out(self, y: Tensor) -> Tensor:
        projected: Tensor = self.out_proj(join_heads(F.rms_norm(y, (self.spec.head_dim,), self.norm, 1e-5)))
        return projected


class LongConvolution(SequenceMixer):
    """v convolved with a learned kernel a channel, read through a gate (after Poli et al. 2023)."""

    def __init__(self, spec: LongConvMixer, d_model: int) -> None:
        super().__init__()
        self.v_proj = nn.Linear(d_model, d_model, bias=False)
        self.gate_proj = nn.Linear(d_model, d_model, bias=False) if spec.gate else None
        self.conv = CausalConvolution(d_model, spec.kernel_len)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor, scope: Scope) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        return self._out(x, self.conv(self.v_proj(x)))

    def begin(self, batch: int) -> State:
        """No inputs yet."""
        return Carried(tensors={"past": self.conv.begin(batch)})

    def step(self, x: Tensor, state: State, scope: Scope) -> Tensor:
        """One token (B, 1, C) to (B, 1, C)."""
        held = carried(state).tensors
        y, held["past"] = self.conv.step(self.v_proj(x), held["past"])
        return self._out(x, y)

    def _out(self, x: Tensor, y: Tensor) -> Tensor:
        gated = y if self.gate_proj is None else y * F.silu(self.gate_proj(x))
        projected: Tensor = self.out_proj(gated)
        return projected

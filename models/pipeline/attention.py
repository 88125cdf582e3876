"""Softmax attention of the DSL: grouped heads, stencils, QK-norm, soft cap, positions and a cache policy.

Three ways to the same result: torch's fused kernel where nothing but causality restricts or bends the scores; blocks
where a stencil bounds how far back a query sees (a dense mask would save nothing); the plain form otherwise, which is
also the oracle of the other two. Keys and values are rounded in training exactly as the cache rounds them.

Letters: B batch, H heads, G key/value heads, T queries, S keys, D head width, R latent rank, C model width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from frameworks.architecture.mixer import AttentionMixer, LatentCache, LocalStencil, NoCache, RingCache, WindowCache
from frameworks.architecture.position import AlibiPosition, RelativeBiasPosition, RopePosition, XposPosition
from models.pipeline.cache import RowCache
from models.pipeline.cost import Cost, Shape, matrices
from models.pipeline.normalization import RmsNorm
from models.pipeline.positions import Rotation, ScoreBias
from models.pipeline.quantisation import rounded, row_bytes
from models.pipeline.scope import Keys, Scope, SequenceMixer, State, join_heads, split_heads, token_positions
from models.pipeline.visibility import Visibility, allows

_QK_EPS = 1e-6


class Attention(SequenceMixer):
    """One attention mixer.

    Args:
        spec: as in the DSL.
        d_model: C.
        owns_keys: False where another stage's keys are read (`kv_from`): no key or value projections are built.
    """

    def __init__(self, spec: AttentionMixer, d_model: int, *, owns_keys: bool = True) -> None:
        super().__init__()
        self.spec = spec
        self.owns_keys = owns_keys
        self.visibility = Visibility(spec)
        self.scale = spec.head_dim**-0.5 if spec.qk_scale is None else spec.qk_scale
        width = spec.groups * spec.head_dim
        self.q_proj = nn.Linear(d_model, spec.heads * spec.head_dim, bias=False)
        self.latent = isinstance(spec.kv, LatentCache)
        self.quant = "none" if isinstance(spec.kv, NoCache) else spec.kv.quant
        self.window = spec.kv.window if isinstance(spec.kv, WindowCache | RingCache) else None
        if owns_keys:
            source = d_model
            if isinstance(spec.kv, LatentCache):
                source = spec.kv.rank
                self.kv_down = nn.Linear(d_model, source, bias=False)
            self.k_proj = nn.Linear(source, width, bias=False)
            self.v_proj = nn.Linear(source, width, bias=False)
            self.k_norm = _qk_norm(spec)
        self.q_norm = _qk_norm(spec)
        self.out_proj = nn.Linear(spec.heads * spec.head_dim, d_model, bias=False)
        pos = spec.pos
        self.rotation = Rotation(pos, spec.head_dim) if isinstance(pos, RopePosition | XposPosition) else None
        self.bias = ScoreBias(pos, spec.heads) if isinstance(pos, AlibiPosition | RelativeBiasPosition) else None

    def forward(self, x: Tensor, scope: Scope) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        positions = token_positions(scope, x.shape[1], x.device)
        q = self._queries(x, positions)
        keys = scope.shared if not self.owns_keys else self._own_keys(x if scope.memory is None else scope.memory)
        if keys is None:
            raise ValueError("attention without keys of its own needs the keys of another stage")
        scope.published = keys
        return self._out(self._attend(q, keys, positions, scope.causal))

    def begin(self, batch: int) -> State:
        """The empty cache."""
        return RowCache(self.spec) if self.owns_keys else _Nothing()

    def step(self, x: Tensor, state: State, scope: Scope) -> Tensor:
        """One token (B, 1, C) to (B, 1, C)."""
        positions = token_positions(scope, 1, x.device)
        q = self._queries(x, positions)
        keys = scope.shared
        if isinstance(state, RowCache):
            source = x if scope.memory is None else scope.memory
            if self.latent:
                state.append(self.kv_down(source).unsqueeze(1))
                (latent,), kept = state.read()
                k, v = self._from_source(latent.squeeze(1), kept.clamp(min=0))
            else:
                state.append(*self._from_source(source, positions))
                (k, v), kept = state.read()
            keys = Keys(k=k, v=v, positions=kept, window=self.window)
        if keys is None:
            raise ValueError("attention without keys of its own needs the keys of another stage")
        scope.published = keys
        return self._out(self.plain(q, keys, positions, causal=True))

    def plain(self, q: Tensor, keys: Keys, positions: Tensor, *, causal: bool) -> Tensor:
        """The plain form, all pairs: q (B, H, T, D) at `positions` to (B, H, T, D)."""
        seen = self._seen(positions, keys) if causal else None
        return self._softmax(self._grouped(q), keys.k, keys.v, positions, keys.positions, seen).flatten(1, 2)

    def _queries(self, x: Tensor, positions: Tensor) -> Tensor:
        q = self.q_norm(split_heads(self.q_proj(x), self.spec.heads))
        return q if self.rotation is None else self.rotation(q, positions, is_key=False)  # type: ignore[no-any-return]

    def _own_keys(self, source: Tensor) -> Keys:
        positions = torch.arange(source.shape[1], device=source.device)
        if self.latent:
            k, v = self._from_source(rounded(self.kv_down(source), self.quant), positions)
        else:
            k, v = (rounded(rows, self.quant) for rows in self._from_source(source, positions))
        return Keys(k=k, v=v, positions=positions, window=self.window)

    def _from_source(self, source: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        k = self.k_norm(split_heads(self.k_proj(source), self.spec.groups))
        v = split_heads(self.v_proj(source), self.spec.groups)
        return (k if self.rotation is None else self.rotation(k, positions, is_key=True)), v

    def _attend(self, q: Tensor, keys: Keys, positions: Tensor, causal: bool) -> Tensor:
        free = not causal or (self.visibility.unrestricted and keys.window is None)
        if free and self.bias is None and self.spec.softcap is None:
            gqa = self.spec.groups != self.spec.heads
            return F.scaled_dot_product_attention(q, keys.k, keys.v, is_causal=causal, scale=self.scale, enable_gqa=gqa)
        block = blocked_length(self.spec, q.shape[-2], keys.window) if causal else None
        if block is None:
            return self.plain(q, keys, positions, causal=causal)
        return self._blocked(q, keys, positions, block)

    def _blocked(self, q: Tensor, keys: Keys, positions: Tensor, block: int) -> Tensor:
        """Queries in blocks, each with the keys of its own block and the one before."""
        length = q.shape[-2]
        n = -(-length // block)
        fill = n * block - length
        q = self._grouped(F.pad(q, (0, 0, 0, fill)).unflatten(-2, (n, block)).transpose(1, 2).flatten(0, 1))  # type: ignore[no-untyped-call]

        def with_previous(rows: Tensor) -> Tensor:  # (B, G, S, D) to (B N, G, 2 L, D)
            parts = F.pad(rows, (0, 0, block, fill)).unflatten(-2, (n + 1, block))  # type: ignore[no-untyped-call]
            pairs = torch.cat([parts[:, :, :-1], parts[:, :, 1:]], -2)  # (B, G, N, 2 L, D)
            return pairs.transpose(1, 2).flatten(0, 1)

        at = F.pad(positions, (0, fill), value=length).unflatten(0, (n, block))  # type: ignore[no-untyped-call]
        k_at = F.pad(keys.positions, (block, fill), value=-1).unflatten(0, (n + 1, block))  # type: ignore[no-untyped-call]
        k_at = torch.cat([k_at[:-1], k_at[1:]], -1)  # (N, 2 L)
        seen = self._seen(at, Keys(k=keys.k, v=keys.v, positions=k_at, window=keys.window))
        y = self._softmax(q, with_previous(keys.k), with_previous(keys.v), at, k_at, seen).flatten(1, 2)
        y = y.unflatten(0, (-1, n)).transpose(1, 2).flatten(2, 3)  # type: ignore[no-untyped-call]  # (B, H, N L, D)
        return y[..., :length, :]  # type: ignore[no-any-return]

    def _softmax(
        self, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, k_positions: Tensor, seen: Tensor | None
    ) -> Tensor:
        """q (X, G, H / G, T, D), k and v (X, G, S, D), positions and `seen` with N leading where X = B N."""
        scores = self.scale * (q @ k.unsqueeze(2).transpose(-1, -2))  # (X, G, H / G, T, S)
        if self.spec.softcap is not None:
            scores = self.spec.softcap * torch.tanh(scores / self.spec.softcap)
        lead = positions.shape[:-1]  # () or (N,)
        if lead:
            scores = scores.unflatten(0, (-1, *lead))
        if self.bias is not None:
            scores = scores + self.bias(positions, k_positions, scores).unflatten(-3, (self.spec.groups, -1))
        if seen is not None:
            scores = scores.masked_fill(~seen.unsqueeze(-3).unsqueeze(-3), float("-inf"))
            # A filled query sees nothing; its row is cut off later and must not be NaN in the backward.
            scores = scores.masked_fill(~seen.any(-1)[..., None, None, :, None], 0.0)
        if lead:
            scores = scores.flatten(0, 1)
        return scores.softmax(-1) @ v.unsqueeze(2)

    def _seen(self, positions: Tensor, keys: Keys) -> Tensor:
        seen = self.visibility(positions, keys.positions)
        if keys.window is not None:
            gap = LocalStencil(window=keys.window)
            seen = seen & allows(gap, positions.unsqueeze(-1), keys.positions.unsqueeze(-2))
        return seen

    def _grouped(self, q: Tensor) -> Tensor:
        return q.unflatten(1, (self.spec.groups, -1))  # type: ignore[no-any-return, no-untyped-call]

    def _out(self, y: Tensor) -> Tensor:
        projected: Tensor = self.out_proj(join_heads(y))
        return projected


class _Nothing:
    """The state of a mixer that reads another's."""

    def n_bytes(self) -> int:
        """Nothing is held."""
        return 0


def blocked_length(spec: AttentionMixer, length: int, source_window: int | None) -> int | None:
    """Tokens a block for the blocked form, or None where the plain form computes no more."""
    bounds = [bound for bound in (Visibility(spec).reach(), source_window) if bound is not None]
    reach = min(bounds) if bounds else None
    return reach if reach is not None and 2 * reach < length else None


def attention_cost(
    spec: AttentionMixer, d_model: int, shape: Shape, *, owns_keys: bool, causal: bool, source_window: int | None
) -> Cost:
    """What one attention mixer costs; `source_window` is that of the keys it reads with `kv_from`."""
    inner, width = spec.heads * spec.head_dim, spec.groups * spec.head_dim
    cost = matrices(2 * d_model * inner, shape.tokens)
    norm = {"none": 0, "rms": spec.head_dim, "layer": 2 * spec.head_dim}[spec.qk_norm]
    if owns_keys:
        source = d_model
        if isinstance(spec.kv, LatentCache):
            source = spec.kv.rank
            cost += matrices(d_model * source, shape.tokens)
        cost += matrices(2 * source * width, shape.tokens) + Cost(kv_bytes=_cache_bytes(spec, shape.length))
        norm *= 2
    bias = spec.heads * spec.pos.buckets if isinstance(spec.pos, RelativeBiasPosition) else 0
    window = spec.kv.window if owns_keys and isinstance(spec.kv, WindowCache | RingCache) else source_window
    block = blocked_length(spec, shape.length, window) if causal else None
    n = 0 if block is None else -(-shape.length // block)
    pairs = shape.length**2 if block is None else 2 * n * block * block
    return cost + Cost(parameters=norm + bias, flops=2 * 2 * shape.batch * pairs * inner)


def _cache_bytes(spec: AttentionMixer, length: int) -> int:
    if isinstance(spec.kv, NoCache):
        return 0
    if isinstance(spec.kv, LatentCache):
        return length * row_bytes(spec.kv.rank, spec.kv.quant)
    kept = length
    if isinstance(spec.kv, WindowCache):
        kept = min(length, spec.kv.window)
    elif isinstance(spec.kv, RingCache):
        kept = spec.kv.window
    return 2 * kept * spec.groups * row_bytes(spec.head_dim, spec.kv.quant)


def _qk_norm(spec: AttentionMixer) -> nn.Module:
    if spec.qk_norm == "none":
        return nn.Identity()
    return RmsNorm(spec.head_dim, _QK_EPS) if spec.qk_norm == "rms" else nn.LayerNorm(spec.head_dim, eps=_QK_EPS)

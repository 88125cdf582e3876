"""Linear attention with a scalar decay: the core of retention, linear attention and state space duality.

    S_t = exp(g_t) S_{t-1} + k_t^T v_t,    y_t = q_t S_t

so that y_i = sum_{j<=i} exp(c_i - c_j) (q_i . k_j) v_j with c the running sum of g. Four forms of the same sum: the
recurrence (the naive oracle, and one step of it for decoding), the parallel form over the T x T square, and the
chunkwise form, which is parallel within a chunk and carries states between chunks by one product with an (N, N)
matrix of decays instead of a loop. The decay is masked before the exponential, so a long chunk cannot overflow.

Letters: B batch, H heads, T tokens, K key width, V value width, L tokens a chunk, N chunks. Queries and keys may have
one head that all heads share (H = 1 there), as in state space duality.
"""

from __future__ import annotations

import torch
from torch import Tensor

PARALLEL_UP_TO = 128
"""Tokens up to which the parallel form is the faster one (measured on one CPU thread, forward and backward)."""
CHUNK = 64


def form_of(length: int, chunk: int | None) -> int | None:
    """Tokens a chunk for a sequence of `length`, or None for the parallel form; `chunk` None decides by speed."""
    if chunk is None:
        return None if length <= PARALLEL_UP_TO else CHUNK
    return None if length <= chunk else chunk


def decayed_attention(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, *, chunk: int | None = None, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The faster form for this length, see `form_of`.

    Args:
        q: queries (B, H or 1, T, K).
        k: keys (B, H or 1, T, K).
        v: values (B, H, T, V).
        log_decay: g, never above 0: (B, H, T), or (H,) where it is the same at every step; None is no decay.
        chunk: tokens a chunk; None decides by speed.
        state: S before the first token, (B, H, K, V); None is zero.

    Returns:
        y (B, H, T, V) and the state after the last token (B, H, K, V).
    """
    size = form_of(q.shape[-2], chunk)
    if size is None:
        return parallel(q, k, v, log_decay, state)
    return chunkwise(q, k, v, log_decay, size, state)


def recurrent(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The recurrence token by token: the naive form. Arguments and result as `decayed_attention`."""
    state = _zero_state(k, v) if state is None else state
    decay = _per_step(log_decay, v)
    outputs = []
    for t in range(q.shape[-2]):
        y, state = step(q[..., t, :], k[..., t, :], v[..., t, :], None if decay is None else decay[..., t], state)
        outputs.append(y)
    return torch.stack(outputs, -2), state


def step(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token: q, k (B, H or 1, K), v (B, H, V), log_decay (B, H) or (H,), state (B, H, K, V) to y (B, H, V)."""
    if log_decay is not None:
        state = state * log_decay.exp()[..., None, None]
    state = state + k.unsqueeze(-1) * v.unsqueeze(-2)
    return (q.unsqueeze(-2) @ state).squeeze(-2), state


def parallel(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """All pairs at once. Arguments and result as `decayed_attention`."""
    length = q.shape[-2]
    scores = q @ k.transpose(-1, -2)  # (B, H or 1, T, T)
    c = _running(log_decay, length)
    y = _weighted(scores, c) @ v
    last = k if c is None else k * (c[..., -1:] - c).exp().unsqueeze(-1)
    after = last.transpose(-1, -2) @ v  # (B, H, K, V)
    if state is not None:
        y = y + (q if c is None else q * c.exp().unsqueeze(-1)) @ state
        after = after + (state if c is None else state * c[..., -1].exp()[..., None, None])
    return y, after


def chunkwise(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, chunk: int, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Chunks of `chunk` tokens. Arguments and result as `decayed_attention`.

    The last chunk is filled with zero keys and values and no decay, which leaves states as they are.
    """
    batch, heads, length, width = v.shape
    n = -(-length // chunk)
    fill = n * chunk - length
    # (B, H, N, L, ...)
    q, k, v = (_filled(x, fill).unflatten(-2, (n, chunk)) for x in (q, k, v))  # type: ignore[no-untyped-call]
    c, total = _chunk_decays(log_decay, length, n, chunk, v)
    y = _weighted(q @ k.transpose(-1, -2), c) @ v
    last = k if c is None else k * (total.unsqueeze(-1) - c).exp().unsqueeze(-1)
    gained = last.transpose(-1, -2) @ v  # (B, H, N, K, V)
    between = _between(total)  # (.., N + 1, N)
    key_width = k.shape[-1]
    entering = between @ gained.flatten(-2)  # (B, H, N + 1, K V)
    if state is not None:
        running = torch.cat([torch.zeros_like(total[..., :1]), total.cumsum(-1)], -1)  # (.., N + 1)
        entering = entering + running.exp().unsqueeze(-1) * state.flatten(-2).unsqueeze(-2)
    entering = entering.unflatten(-1, (key_width, width))  # type: ignore[no-untyped-call]
    reading = q if c is None else q * c.exp().unsqueeze(-1)
    y = y + reading @ entering[..., :-1, :, :]
    return y.reshape(batch, heads, n * chunk, width)[..., :length, :], entering[..., -1, :, :]


def flops(
    *, batch: int, heads: int, shared: bool, length: int, key_width: int, value_width: int, chunk: int | None
) -> int:
    """Matrix FLOPs of `decayed_attention` without a state; `shared` says that queries and keys have one head."""
    size = form_of(length, chunk)
    scored = batch * (1 if shared else heads)
    if size is None:
        pairs = length * length
        return 2 * pairs * (scored * key_width + batch * heads * value_width) + (
            2 * batch * heads * length * key_width * value_width
        )
    n = -(-length // size)
    within = 2 * n * size * size * (scored * key_width + batch * heads * value_width)
    states = 2 * 2 * batch * heads * n * size * key_width * value_width
    return within + states + 2 * batch * heads * (n + 1) * n * key_width * value_width


def _weighted(scores: Tensor, c: Tensor | None) -> Tensor:
    """Scores (.., T, T) times exp(c_i - c_j), zero above the diagonal."""
    if c is None:
        return scores.tril()
    gap = c.unsqueeze(-1) - c.unsqueeze(-2)
    visible = torch.ones(gap.shape[-2:], dtype=torch.bool, device=gap.device).tril()
    return scores * gap.masked_fill(~visible, float("-inf")).exp()


def _running(log_decay: Tensor | None, length: int) -> Tensor | None:
    """c: (B, H, T), or (H, T) for a constant decay."""
    if log_decay is None:
        return None
    if log_decay.ndim == 1:
        return log_decay.unsqueeze(-1) * torch.arange(1, length + 1, device=log_decay.device)
    return log_decay.cumsum(-1)


def _chunk_decays(
    log_decay: Tensor | None, length: int, n: int, chunk: int, like: Tensor
) -> tuple[Tensor | None, Tensor]:
    """The running decay inside each chunk (.., N, L) and each chunk's whole decay (.., N)."""
    if log_decay is None:
        return None, torch.zeros(n, dtype=like.dtype, device=like.device)
    if log_decay.ndim == 1:
        position = torch.arange(1, chunk + 1, device=log_decay.device)
        c = (log_decay.unsqueeze(-1) * position).unsqueeze(-2)  # (H, 1, L)
        # A filled token decays nothing; with one decay for all tokens that only matters after the last chunk.
        counts = torch.full((n,), chunk, device=log_decay.device)
        counts[-1] = length - (n - 1) * chunk
        whole = log_decay.unsqueeze(-1) * counts  # (H, N)
        capped = torch.minimum(position.expand(n, chunk), counts.unsqueeze(-1))
        return (c if length == n * chunk else log_decay[:, None, None] * capped), whole
    steps = torch.nn.functional.pad(log_decay, (0, n * chunk - length)).unflatten(-1, (n, chunk))  # type: ignore[no-untyped-call]
    c = steps.cumsum(-1)
    return c, c[..., -1]


def _between(total: Tensor) -> Tensor:
    """What is left, entering chunk n, of what chunk m added: (.., N + 1, N)."""
    running = torch.cat([torch.zeros_like(total[..., :1]), total.cumsum(-1)], -1)
    gap = running.unsqueeze(-1) - running[..., 1:].unsqueeze(-2)
    before = torch.ones(gap.shape[-2:], dtype=torch.bool, device=gap.device).tril(-1)
    return gap.masked_fill(~before, float("-inf")).exp()


def _per_step(log_decay: Tensor | None, v: Tensor) -> Tensor | None:
    if log_decay is None or log_decay.ndim > 1:
        return log_decay
    return log_decay.unsqueeze(-1).expand(-1, v.shape[-2])


def _zero_state(k: Tensor, v: Tensor) -> Tensor:
    return v.new_zeros(v.shape[0], v.shape[1], k.shape[-1], v.shape[-1])


def _filled(x: Tensor, fill: int) -> Tensor:
    return torch.nn.functional.pad(x, (0, 0, 0, fill)) if fill else x

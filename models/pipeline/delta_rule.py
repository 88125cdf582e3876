"""The gated delta rule (Yang et al. 2024): a memory that corrects what it holds for a key before it writes.

    S_t = a_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T,    y_t = S_t^T q_t        (S is K x V; |k_t| = 1)

The chunkwise form solves one unit triangular system a chunk for the corrections u_t = b_t (v_t - a_t S_{t-1}^T k_t),
after which the rest is linear attention with a decay. The recurrence is the naive oracle.

Letters: B batch, H heads, T tokens, K key width, V value width, L tokens a chunk, N chunks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

CHUNK = 32


def form_of(length: int, chunk: int | None) -> int:
    """Tokens a chunk for a sequence of `length`; a sequence that fits in one chunk is done in parallel."""
    return min(length, CHUNK if chunk is None else chunk)


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    b: Tensor,
    log_decay: Tensor | None,
    *,
    chunk: int | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The chunkwise form; one chunk is the parallel form.

    Args:
        q: queries (B, H, T, K).
        k: keys of unit length (B, H, T, K).
        v: values (B, H, T, V).
        b: how much of the error is corrected, 0 to 1: (B, H, T).
        log_decay: log a_t, never above 0: (B, H, T); None is no decay.
        chunk: tokens a chunk; None takes the fastest.
        state: S before the first token (B, H, K, V); None is zero.

    Returns:
        y (B, H, T, V) and the state after the last token (B, H, K, V).
    """
    batch, heads, length, width = v.shape
    size = form_of(length, chunk)
    n = -(-length // size)
    fill = n * size - length
    q, k, v = (F.pad(x, (0, 0, 0, fill)).unflatten(-2, (n, size)) for x in (q, k, v))  # type: ignore[no-untyped-call]  # (B, H, N, L, ...)
    b = F.pad(b, (0, fill)).unflatten(-1, (n, size)).unsqueeze(-1)  # type: ignore[no-untyped-call]  # (B, H, N, L, 1)
    overlap = k @ k.transpose(-1, -2)  # (B, H, N, L, L)
    scores = q @ k.transpose(-1, -2)
    if log_decay is None:
        system, scores = (b * overlap).tril(-1), scores.tril()
        reading, entering_keys, leaving_keys = q, b * k, k
        left = None
    else:
        c = F.pad(log_decay, (0, fill)).unflatten(-1, (n, size)).cumsum(-1)  # type: ignore[no-untyped-call]  # (B, H, N, L)
        visible = torch.ones(size, size, dtype=torch.bool, device=c.device).tril()
        decay = (c.unsqueeze(-1) - c.unsqueeze(-2)).masked_fill(~visible, float("-inf")).exp()
        system, scores = (b * overlap * decay).tril(-1), scores * decay
        reading, entering_keys = q * c.exp().unsqueeze(-1), b * k * c.exp().unsqueeze(-1)
        leaving_keys = k * (c[..., -1:] - c).exp().unsqueeze(-1)
        left = c[..., -1].exp()[..., None, None]  # (B, H, N, 1, 1)
    solved = _solve(system, torch.cat([b * v, entering_keys], -1))
    u, w = solved.split([width, k.shape[-1]], -1)  # type: ignore[no-untyped-call]  # (B, H, N, L, V), (B, H, N, L, K)
    current = v.new_zeros(batch, heads, k.shape[-1], width) if state is None else state
    corrections, states = [], []
    for i, (u_i, w_i, leaving) in enumerate(zip(u.unbind(2), w.unbind(2), leaving_keys.unbind(2), strict=True)):
        states.append(current)
        correction = u_i - w_i @ current  # (B, H, L, V)
        kept = current if left is None else current * left[:, :, i]
        current = kept + leaving.transpose(-1, -2) @ correction
        corrections.append(correction)
    y = scores @ torch.stack(corrections, 2) + reading @ torch.stack(states, 2)
    return y.reshape(batch, heads, n * size, width)[..., :length, :], current


def recurrent(
    q: Tensor, k: Tensor, v: Tensor, b: Tensor, log_decay: Tensor | None, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The recurrence token by token: the naive form. Arguments and result as `delta_rule`."""
    current = v.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1]) if state is None else state
    outputs = []
    for t in range(q.shape[-2]):
        decay = None if log_decay is None else log_decay[..., t]
        y, current = step(q[..., t, :], k[..., t, :], v[..., t, :], b[..., t], decay, current)
        outputs.append(y)
    return torch.stack(outputs, -2), current


def step(q: Tensor, k: Tensor, v: Tensor, b: Tensor, log_decay: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token: q, k (B, H, K), v (B, H, V), b and log_decay (B, H), state (B, H, K, V) to y (B, H, V)."""
    if log_decay is not None:
        state = state * log_decay.exp()[..., None, None]
    held = (k.unsqueeze(-2) @ state).squeeze(-2)  # (B, H, V)
    state = state + k.unsqueeze(-1) * (b.unsqueeze(-1) * (v - held)).unsqueeze(-2)
    return (q.unsqueeze(-2) @ state).squeeze(-2), state


def flops(*, batch: int, heads: int, length: int, key_width: int, value_width: int, chunk: int | None) -> int:
    """Matrix FLOPs of `delta_rule`; the triangular solve is left out, as torch's counter leaves it out."""
    size = form_of(length, chunk)
    n = -(-length // size)
    pairs = 2 * n * size * size * (2 * key_width + value_width)
    through_states = 2 * 3 * n * size * key_width * value_width
    return batch * heads * (pairs + through_states)


def _solve(system: Tensor, right: Tensor) -> Tensor:
    """X with (I + system) X = right; in fp32 at least, for which LAPACK has a solver."""
    wide = torch.promote_types(right.dtype, torch.float32)
    solved = torch.linalg.solve_triangular(system.to(wide), right.to(wide), upper=False, unitriangular=True)
    return solved.to(right.dtype)  # type: ignore[no-any-return]

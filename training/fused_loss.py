"""Linear layer and cross-entropy in one, without ever holding all logits.

With a tied head the logits (N, V) are the largest tensor of a language model's step and are
needed only to make gradients. `fused_linear_cross_entropy` walks over the rows in chunks: it
makes a chunk's logits, turns them in place into softmax minus one-hot, adds the two gradients
and forgets them. One buffer serves every chunk, so memory is O(chunk x V) and no second pass
over the logits is needed in the backward. The naive form beside it is the oracle.

The log-sum-exp costs no exponential of its own: softmax's largest entry is 1 / sum exp(s - max),
so lse = max s - log max p, exact to rounding because max p is at least 1 / V.

Letters: N rows (tokens), C features, V classes (vocabulary).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812

IGNORE_INDEX = -100
_CHUNK_ELEMENTS = 1 << 21
"""Logits held at once: 8 MiB in fp32, which stays in the cache (128 rows at V = 16,384 measured best)."""

_NARROW = 48


def naive_linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, ignore_index: int | None = IGNORE_INDEX
) -> Tensor:
    """The plain form, all logits at once: the oracle of the fused one; same arguments and result."""
    logits = F.linear(hidden, weight).reshape(-1, weight.shape[0])
    ignored = IGNORE_INDEX if ignore_index is None else ignore_index
    return F.cross_entropy(logits, targets.reshape(-1), ignore_index=ignored)


def fused_linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    ignore_index: int | None = IGNORE_INDEX,
    chunk_rows: int | None = None,
) -> Tensor:
    """Mean cross-entropy in nats of the targets under softmax(hidden @ weight.T).

    Differentiable once, in `hidden` and `weight`. Under autocast the products run in the autocast
    type and the loss in fp32.

    Args:
        hidden: features (..., C).
        weight: (V, C).
        targets: class of each row (...), int64.
        ignore_index: rows with this target count neither in the sum nor in the mean; None says
            there are none and saves the test.
        chunk_rows: rows at once; None picks about 8 MiB of logits, at least 64 rows.

    Returns:
        A scalar; NaN where every row is ignored, as in `torch.nn.functional.cross_entropy`.

    Raises:
        ValueError: shapes that do not fit, or `chunk_rows` below 1.
    """
    _check(hidden, weight, targets, chunk_rows)
    rows = hidden.reshape(-1, hidden.shape[-1])
    classes = targets.reshape(-1)
    chunk = chunk_rows or max(64, _CHUNK_ELEMENTS // weight.shape[0])
    kind = hidden.device.type
    apply: Callable[..., Tensor] = _FusedLinearCrossEntropy.apply
    if not torch.is_autocast_enabled(kind):
        return apply(rows, weight, classes, ignore_index, chunk)
    half = torch.get_autocast_dtype(kind)
    with torch.autocast(kind, enabled=False):
        return apply(rows.to(half), weight, classes, ignore_index, chunk)


@torch.no_grad()
def summed_linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, chunk_rows: int | None = None
) -> Tensor:
    """Sum of the rows' cross-entropies in nats: rows in the inputs' type, the sum in fp64. No gradient.

    Args and Raises: as `fused_linear_cross_entropy`; every row counts.
    """
    _check(hidden, weight, targets, chunk_rows)
    rows = hidden.reshape(-1, hidden.shape[-1])
    classes = targets.reshape(-1)
    chunk = chunk_rows or max(64, _CHUNK_ELEMENTS // weight.shape[0])
    total = torch.zeros((), dtype=torch.float64, device=hidden.device)
    for start in range(0, rows.shape[0], chunk):
        logits = rows[start : start + chunk] @ weight.T  # (chunk, V)
        losses, _ = _softmax_losses(logits, classes[start : start + chunk].unsqueeze(1))
        total += losses.sum(dtype=torch.float64)
    return total


def _check(hidden: Tensor, weight: Tensor, targets: Tensor, chunk_rows: int | None) -> None:
    if weight.ndim != 2 or hidden.shape[-1:] != weight.shape[1:] or hidden.shape[:-1] != targets.shape:
        raise ValueError(
            f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)} and targets {tuple(targets.shape)} "
            "do not fit; expected (..., C), (V, C) and (...)"
        )
    if chunk_rows is not None and chunk_rows < 1:
        raise ValueError(f"chunk_rows={chunk_rows}: must be at least 1")


def _softmax_losses(logits: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Losses (R, 1) and softmax (R, V) of logits (R, V) for the targets `column` (R, 1); logits are used up."""
    top = logits.amax(-1, keepdim=True)
    losses = top - logits.gather(1, column)
    # On a CPU softmax goes row by row, so it may write over what it reads.
    probabilities = torch.softmax(logits, -1, out=logits if logits.device.type == "cpu" else None)
    losses -= probabilities.amax(-1, keepdim=True).log_()
    return losses, probabilities


class _FusedLinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, ignore_index: int | None, chunk: int
    ) -> Tensor:
        n_rows, n_classes = hidden.shape[0], weight.shape[0]
        kind = hidden.dtype  # of the products; losses and softmax are at least fp32
        wide = torch.promote_types(kind, torch.float32)
        matrix = weight.to(kind)
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        # With few features the transposed product is a third faster, which pays for turning it over at the end.
        turned = weight.shape[1] <= _NARROW
        grad_weight = torch.zeros_like(weight.T if turned else weight, memory_format=torch.contiguous_format)

        kept = None if ignore_index is None else targets != ignore_index
        classes = targets if kept is None else targets.masked_fill(~kept, 0)
        columns = classes.unsqueeze(1)  # (N, 1)
        buffer = hidden.new_empty(min(chunk, n_rows), n_classes)
        minus_one = torch.full((1, 1), -1.0, dtype=wide, device=hidden.device)
        total = torch.zeros((), dtype=wide, device=hidden.device)
        for start in range(0, n_rows, chunk):
            rows = hidden[start : start + chunk]
            size = rows.shape[0]
            column = columns[start : start + chunk]
            logits = torch.mm(rows, matrix.T, out=buffer[:size]).to(wide)  # (chunk, V)
            losses, delta = _softmax_losses(logits, column)
            delta.scatter_add_(1, column, minus_one.expand(size, 1))
            if kept is not None:
                row_kept = kept[start : start + chunk].unsqueeze(1)
                losses = losses * row_kept
                delta *= row_kept
            total += losses.sum()
            delta = delta.to(kind)
            if grad_hidden is not None:
                torch.mm(delta, matrix, out=grad_hidden[start : start + chunk])
            if need_weight:
                left, right = (rows.T, delta) if turned else (delta.T, rows)
                if kind == weight.dtype:
                    torch.addmm(grad_weight, left, right, out=grad_weight)
                else:
                    grad_weight += (left @ right).to(weight.dtype)
        count = n_rows if kept is None else kept.sum()
        if turned:
            grad_weight = grad_weight.T.contiguous()
        ctx.save_for_backward(grad_hidden, grad_weight if need_weight else None)
        ctx.count = count
        return total / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grad_loss / ctx.count
        to_hidden = None if grad_hidden is None else grad_hidden * scale.to(grad_hidden.dtype)
        to_weight = None if grad_weight is None else grad_weight * scale.to(grad_weight.dtype)
        return to_hidden, to_weight, None, None, None

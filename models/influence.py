"""Influence maps: how much each output position of a mixing layer depends on each value.

For output position i of a head and a random sign vector u, the gradient of u . y_i with respect to the value v_j has
the norm |a_ij| |u| where the layer is y_i = sum_j a_ij v_j, which all the frameworks' mechanisms are or
start from; a mechanism that moves values between channels gets the norm of its action on u. Rows are then
scaled to sum to one. T backward passes a layer: meant for one look at a trained model.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from data.keyed_random import torch_generator
from frameworks.attention.shell import AttentionShell
from models.language_model import LanguageModel


def influence_maps(model: LanguageModel, tokens: Tensor, *, seed: int = 0) -> list[Tensor]:
    """Maps of every layer, averaged over the batch.

    Args:
        model: a trained model; not changed.
        tokens: (B, T) int64.
        seed: of the sign vectors.

    Returns:
        One tensor (H, T, T) a layer in float64, row i the output position; each row sums to one, or is all zero where
        nothing is read at all.
    """
    was_training = model.training
    model.eval()
    maps = []
    try:
        x = F.embedding(tokens, model.embedding.weight) + model.positions[: tokens.shape[1]]
        for layer, block in enumerate(model.blocks):
            x = x.detach()
            maps.append(_layer_map(block, x, torch_generator("influence", seed, layer)))
            with torch.no_grad():
                x = block(x)
    finally:
        model.train(was_training)
    return maps


def _layer_map(block: torch.nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
    """(H, T, T) of one block at its input x (B, T, C)."""
    attention = cast(AttentionShell, block.attention)
    with torch.enable_grad():
        inner = block.attention_norm(x).detach()  # type: ignore[operator]
        batch, length, _ = inner.shape
        split = (batch, length, attention.n_heads, attention.head_dim)
        q, k, v = (
            getattr(attention, name)(inner).view(split).transpose(1, 2).detach()  # (B, H, T, D)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        v.requires_grad_()
        y = attention.mix(inner, q, k, v)
        signs = torch.randint(0, 2, (y.shape[-1],), generator=generator).to(y) * 2 - 1  # (D,)
        rows = []
        for position in range(length):
            (grad,) = torch.autograd.grad((y[:, :, position] * signs).sum(), v, retain_graph=position + 1 < length)
            rows.append(grad.double().norm(dim=-1).mean(dim=0))  # (H, T)
    table = torch.stack(rows, dim=1)  # (H, T, T)
    total = table.sum(-1, keepdim=True)
    return torch.where(total > 0, table / total.clamp(min=1e-300), torch.zeros_like(table))

"""Validation loss: average nats a token over fixed windows, in fp32 with the sum in fp64."""

from __future__ import annotations

import torch
from torch import Tensor

from models.language_model import LanguageModel
from training.fused_loss import summed_linear_cross_entropy


def evaluate(model: LanguageModel, x: Tensor, y: Tensor, *, batch_size: int) -> float:
    """Mean cross-entropy of `y` given `x`, in nats a token; the model is left in training mode.

    Args:
        model: on the device of `x` and `y`.
        x: windows of tokens (N, T).
        y: their targets (N, T).
        batch_size: windows at once.

    Returns:
        The mean; NaN or infinite where the model is broken.
    """
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    with torch.inference_mode(), torch.autocast(x.device.type, enabled=False):
        for start in range(0, x.shape[0], batch_size):
            hidden = model.hidden(x[start : start + batch_size])  # (B, T, C)
            total += summed_linear_cross_entropy(hidden, model.embedding.weight, y[start : start + batch_size])
    model.train()
    return float(total.item()) / y.numel()

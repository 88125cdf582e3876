"""Binary latents a token (Fleuret 2025): inferred by an encoder in training, uniform when the model is used.

The posterior sees the future, so a loss measured with it is no likelihood: training adds the KL beyond kappa, and
candidates are ranked with latents from the prior. Prior draws depend on (draw, row, position) only, so decoding
token by token meets the same latents as the full forward.

Letters: B batch, T tokens, C model width, H bits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from data.keyed_random import numpy_generator, torch_generator
from frameworks.architecture.schema import LatentSamplerModule
from models.pipeline.cost import Cost
from models.pipeline.scope import Scope

_BLOCK = 64


class LatentSampler(nn.Module):
    """Bits to a condition (B, T, C).

    Args:
        spec: as in the DSL.
        d_model: C.
    """

    def __init__(self, spec: LatentSamplerModule, d_model: int) -> None:
        super().__init__()
        self.spec = spec
        self.logits_proj = nn.Linear(d_model, spec.bits, bias=False)
        self.code = nn.Parameter(torch.zeros(2**spec.bits if spec.code == "joint" else spec.bits, d_model))

    def posterior(self, x: Tensor, scope: Scope) -> Tensor:
        """Latents drawn from the encoder's output x (B, T, C), gradients straight through; KL goes to the scope."""
        logits = self.logits_proj(x)  # (B, T, H)
        p = torch.sigmoid(logits)
        uniform = torch.rand(p.shape, generator=torch_generator("posterior", scope.sample)).to(p)
        bits = (uniform < p).to(p.dtype)
        kl = (math.log(2) - F.binary_cross_entropy_with_logits(logits, p, reduction="none")).sum(-1)  # (B, T)
        scope.losses.append((kl - self.spec.free_bits).clamp(min=0).mean())
        scope.kl.append(kl.mean())
        if self.spec.code == "factored":
            return (2 * (bits + p - p.detach()) - 1) @ self.code
        values = torch.arange(2**self.spec.bits, device=x.device)
        table = (values.unsqueeze(-1) >> torch.arange(self.spec.bits, device=x.device) & 1).to(p.dtype)  # (2^H, H)
        soft = (logits @ table.T + F.logsigmoid(-logits).sum(-1, keepdim=True)).exp()  # (B, T, 2^H)
        hard = F.one_hot(self._index(bits), 2**self.spec.bits).to(p.dtype)
        return (hard + soft - soft.detach()) @ self.code  # type: ignore[no-any-return]

    def prior(self, batch: int, length: int, scope: Scope) -> Tensor:
        """Latents (B, T, C) from uniform bits at the scope's positions."""
        bits = self._uniform_bits(batch, scope.position, length, scope.sample).to(self.code)
        if self.spec.code == "factored":
            return (2 * bits - 1) @ self.code
        return F.embedding(self._index(bits), self.code)

    def _index(self, bits: Tensor) -> Tensor:
        return (bits.to(torch.int64) << torch.arange(self.spec.bits, device=bits.device)).sum(-1)

    def _uniform_bits(self, batch: int, start: int, length: int, sample: int) -> Tensor:
        first, last = start // _BLOCK, (start + length - 1) // _BLOCK
        rows = []
        for row in range(batch):
            blocks = [
                numpy_generator("latent", sample, row, block).integers(2, size=(_BLOCK, self.spec.bits))
                for block in range(first, last + 1)
            ]
            rows.append(torch.cat([torch.from_numpy(block) for block in blocks]))
        return torch.stack(rows)[:, start - first * _BLOCK :][:, :length]


def latent_cost(spec: LatentSamplerModule, d_model: int, rows: int, *, posterior: bool) -> Cost:
    """What it costs on `rows` tokens with latents from the posterior (training) or the prior."""
    values = 2**spec.bits
    codes = values if spec.code == "joint" else spec.bits
    parameters = d_model * spec.bits + codes * d_model
    flops = 0
    if spec.code == "factored":
        flops += 2 * rows * spec.bits * d_model
    if posterior:
        flops += 2 * rows * d_model * spec.bits
        if spec.code == "joint":
            flops += 2 * rows * values * (spec.bits + d_model)
    return Cost(parameters=parameters, flops=flops)

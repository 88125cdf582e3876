"""Routers: which of several choices each token takes, and the loss that keeps them balanced.

Letters: N tokens, C features, E choices, K chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from frameworks.architecture.schema import Router
from models.pipeline.scope import Routing, Scope


class TokenRouter(nn.Module):
    """Top-k of softmax(logits / temp), renormalised to sum 1.

    With k = 1 that sum is the constant 1; its gradient is kept as that of log p, so the router learns all the same.

    Args:
        spec: top_k, temp and balance.
        d_model: C.
        choices: E.
        place: what its statistics are called.
    """

    def __init__(self, spec: Router, d_model: int, choices: int, place: str) -> None:
        super().__init__()
        self.spec = spec
        self.place = place
        self.choices = choices
        self.router_proj = nn.Linear(d_model, choices, bias=False)

    def forward(self, x: Tensor, scope: Scope) -> tuple[Tensor, Tensor]:
        """Weights (..., K), which sum to 1, and indices (..., K) for x (..., C); the loss goes to the scope."""
        probabilities = (self.router_proj(x) / self.spec.temp).softmax(-1)  # (..., E)
        top, index = probabilities.topk(self.spec.top_k, -1)
        weights = top / top.detach() if self.spec.top_k == 1 else top / top.sum(-1, keepdim=True)
        self._record(probabilities, index, scope)
        return weights, index

    def dense(self, weights: Tensor, index: Tensor) -> Tensor:
        """Weights over all choices, zero where not chosen: (..., E)."""
        return torch.zeros(*weights.shape[:-1], self.choices, dtype=weights.dtype, device=weights.device).scatter(
            -1, index, weights
        )

    def _record(self, probabilities: Tensor, index: Tensor, scope: Scope) -> None:
        flat = probabilities.reshape(-1, self.choices)
        if not flat.shape[0]:
            return
        usage = torch.bincount(index.reshape(-1), minlength=self.choices).to(flat.dtype) / index.numel()
        if self.spec.balance > 0:
            scope.losses.append(self.spec.balance * balance_loss(flat, usage))
        with torch.no_grad():
            entropy = -(flat * flat.clamp(min=1e-30).log()).sum(-1).mean()
        scope.routing.append(Routing(place=f"{scope.place}{self.place}", usage=usage, entropy=entropy))


def balance_loss(probabilities: Tensor, usage: Tensor) -> Tensor:
    """E sum_i f_i P_i of probabilities (N, E) and the share of tokens f (E,): 1 when uniform (Fedus et al. 2021)."""
    return probabilities.shape[-1] * (usage * probabilities.mean(0)).sum()

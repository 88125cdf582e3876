"""Conditioning: how another stage's output steers the input of a branch. The identity at initialisation.

Letters: B batch, T tokens, C model width, R rank.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from frameworks.architecture.schema import Condition
from models.pipeline.cost import Cost, matrices


class Conditioning(nn.Module):
    """The ops of one `cond` on one branch, in the order given.

    Args:
        spec: as in the DSL.
        d_model: C.
    """

    def __init__(self, spec: Condition, d_model: int) -> None:
        super().__init__()
        self.ops = spec.ops
        self.down_proj = nn.Linear(d_model, spec.rank, bias=False)
        for op in spec.ops:
            if op == "lora":
                self.lora_a_proj = nn.Linear(d_model, spec.rank, bias=False)
            # zero_: what starts at zero, so that conditioning starts as the identity
            setattr(self, f"zero_{op}_proj", nn.Linear(spec.rank, (2 if op == "film" else 1) * d_model, bias=False))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map x (B, T, C) under `condition` (B, T, C) to (B, T, C)."""
        signal = F.silu(self.down_proj(condition))  # (B, T, R)
        for op in self.ops:
            out: nn.Module = getattr(self, f"zero_{op}_proj")
            if op == "lora":
                x = x + out(signal * self.lora_a_proj(x))
            elif op == "film":
                scale, shift = out(signal).chunk(2, -1)
                x = x * (1 + scale) + shift
            elif op == "add":
                x = x + out(signal)
            else:
                x = x * (1 + out(signal))
        return x


def conditioning_cost(spec: Condition, d_model: int, rows: int) -> Cost:
    """What one branch's conditioning costs on `rows` tokens."""
    factors = {"film": 2, "add": 1, "scale": 1, "lora": 2}
    return matrices((1 + sum(factors[op] for op in spec.ops)) * d_model * spec.rank, rows)

"""Blocks of the matrix_mixer framework from an `__init__` and a `forward` body."""

from __future__ import annotations

import textwrap

_TEMPLATE = """class Mixer(nn.Module):
    def __init__(self, d_model, n_heads, head_dim):
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = head_dim
{init}
    def mask(self, q):
        length = q.shape[-2]
        return torch.ones(length, length, dtype=torch.bool, device=q.device).tril()

    def attend(self, q, k, v):
        s = q @ k.transpose(-1, -2) * self.head_dim**-0.5
        return torch.softmax(s.masked_fill(~self.mask(q), float("-inf")), -1) @ v

    def forward(self, x, q, k, v):
{forward}
"""


def mixer_block(forward: str, init: str = "pass") -> str:
    """A block whose class has `attend` (softmax attention) and `mask` (lower triangle) to build on."""

    def indented(text: str) -> str:
        return textwrap.indent(textwrap.dedent(text).strip("\n"), " " * 8)

    return _TEMPLATE.format(init=indented(init), forward=indented(forward))

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.transformer import FeedForward, FixedTransformerBlock, sinusoidal_positions


class _Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def test_block_is_sequential_with_plain_residuals() -> None:
    generator = torch.Generator().manual_seed(1)
    block = FixedTransformerBlock(12, nn.Linear(12, 12))
    x = torch.randn(2, 5, 12, generator=generator)

    middle = x + block.attention(block.attention_norm(x))
    expected = middle + block.feed_forward(block.feed_forward_norm(middle))

    torch.testing.assert_close(block(x), expected, rtol=0, atol=0)


def test_block_without_attention_and_feed_forward_is_the_identity() -> None:
    block = FixedTransformerBlock(8, _Zero())
    nn.init.zeros_(block.feed_forward.down_proj.weight)
    x = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(2))
    assert torch.equal(block(x), x)


def test_norms_are_layer_norms_with_scale_and_shift() -> None:
    block = FixedTransformerBlock(8, _Zero())
    for norm in (block.attention_norm, block.feed_forward_norm):
        assert type(norm) is nn.LayerNorm
        assert norm.weight is not None
        assert norm.bias is not None


def test_feed_forward_is_gelu_four_wide_without_bias() -> None:
    layer = FeedForward(6)
    x = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float32)
    inner = x @ layer.up_proj.weight.T
    gelu = 0.5 * inner * (1 + torch.erf(inner / math.sqrt(2)))
    torch.testing.assert_close(layer(x), gelu @ layer.down_proj.weight.T, rtol=1e-5, atol=1e-6)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 8 * 6 * 6


def test_positions_are_the_sines_and_cosines_of_vaswani() -> None:
    signals = sinusoidal_positions(40, 8)
    for position in (0, 1, 17, 39):
        for pair in range(4):
            angle = position / 10_000 ** (2 * pair / 8)
            assert abs(signals[position, 2 * pair].item() - math.sin(angle)) < 1e-6
            assert abs(signals[position, 2 * pair + 1].item() - math.cos(angle)) < 1e-6


def test_positions_of_an_odd_width() -> None:
    signals = sinusoidal_positions(5, 7)
    assert signals.shape == (5, 7)
    assert torch.isfinite(signals).all()
    assert signals[3, 6].item() != 0

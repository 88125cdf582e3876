"""Influence maps: for softmax attention they are the attention matrix."""

from __future__ import annotations

import pytest
import torch

from models.influence import influence_maps
from models.language_model import LanguageModel, attention_class


def model_of(variant: str) -> LanguageModel:
    kind = attention_class("coefficient_dynamics", variant)
    return LanguageModel(kind, vocab_size=32, d_model=16, n_layers=2, n_heads=2, seed=1)


@pytest.mark.parametrize("variant", ["standard", "evolvable"])
def test_softmax_attention_has_its_matrix_as_map(variant: str) -> None:
    model = model_of(variant)
    tokens = torch.randint(0, 32, (1, 9), generator=torch.Generator().manual_seed(0))
    maps = influence_maps(model, tokens)
    assert [tuple(table.shape) for table in maps] == [(2, 9, 9)] * 2
    block = model.blocks[0]
    x = torch.nn.functional.embedding(tokens, model.embedding.weight) + model.positions[:9]
    inner = block.attention_norm(x)
    q, k = (
        getattr(block.attention, name)(inner).view(1, 9, 2, 8).transpose(1, 2).double() for name in ("q_proj", "k_proj")
    )
    scores = (q @ k.transpose(-1, -2) / 8**0.5).masked_fill(~torch.ones(9, 9).tril().bool(), float("-inf"))
    assert torch.allclose(maps[0], scores.softmax(-1)[0], atol=1e-5)


def test_the_model_is_left_as_it_was() -> None:
    model = model_of("standard").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    influence_maps(model, torch.zeros(2, 5, dtype=torch.int64))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())

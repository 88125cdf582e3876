"""A small FSMT model with random weights: three tables tied, padding, odd sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")


def random_model(*, tied: bool = True) -> nn.Module:
    """An untrained model whose outputs vary: d_model 36, 2 + 2 layers, 101 tokens."""
    from transformers import FSMTForConditionalGeneration

    from models.fsmt.configuration import FsmtShape, fsmt_config

    shape = FsmtShape(
        d_model=36,
        n_heads=3,
        ffn_dim=50,
        vocab_size=101,
        encoder_layers=2,
        decoder_layers=2,
        tie_word_embeddings=tied,
        max_position_embeddings=40,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = FSMTForConditionalGeneration(fsmt_config(shape, ("en", "de"))).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(4)
    return model


@pytest.fixture(scope="session")
def model() -> nn.Module:
    """Tied tables; tests leave it as it was."""
    return random_model()


@pytest.fixture(scope="session")
def untied() -> nn.Module:
    """Three tables of its own."""
    return random_model(tied=False)

"""Small models on disk for tests: any tensors, with config and tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from data.keyed_random import torch_generator

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "vocab_size": 12,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
}


def shapes(layers: int = 2, width: int = 8, vocabulary: int = 12) -> dict[str, tuple[int, ...]]:
    named: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    for layer in range(layers):
        named[f"model.layers.{layer}.self_attn.q_proj.weight"] = (width, width)
        named[f"model.layers.{layer}.mlp.up_proj.weight"] = (2 * width, width)
        named[f"model.layers.{layer}.input_layernorm.weight"] = (width,)
    return named | {"model.norm.weight": (width,)}


def _write_model(
    folder: Path,
    seed: int,
    *,
    layers: int = 2,
    width: int = 8,
    vocabulary: int = 12,
    dtype: torch.dtype = torch.float32,
    tokenizer: str = "a",
    config: Mapping[str, object] | None = None,
) -> Path:
    """A model with random weights; base and children share most of them."""
    folder.mkdir()
    tensors = {}
    for name, shape in shapes(layers, width, vocabulary).items():
        common = torch.randn(shape, generator=torch_generator("tiny", name, *shape))
        own = torch.randn(shape, generator=torch_generator("tiny", name, seed, *shape))
        tensors[name] = (common + 0.1 * seed * own).to(dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    facts = CONFIG | {"num_hidden_layers": layers, "hidden_size": width, "vocab_size": vocabulary} | (config or {})
    (folder / "config.json").write_text(json.dumps(facts))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {tokenizer: 0}}}))
    return folder


@pytest.fixture
def write_model() -> Callable[..., Path]:
    """`write_model(folder, seed, layers=..., ...)` writes a small random model."""
    return _write_model

"""The fingerprint of a built architecture: two with the same one are the same candidate, however they are written.

It is taken of behaviour, not of text: outputs and gradients on fixed tokens with every parameter moved off its
initial value (so that what starts at zero shows), the parameters' names and shapes, the analytic cost at a short and
at a long length, and the training settings, each of which the trainer reads. A mutant with its parent's fingerprint is
a no-op and is never trained.
"""

from __future__ import annotations

import hashlib
import json

import torch

from data.keyed_random import torch_generator
from frameworks.architecture.schema import Architecture
from models.pipeline.architecture_cost import architecture_cost
from models.pipeline.model import PipelineModel

_VOCABULARY = 61
_TOKENS = 48
_LONG = 1 << 15
_DIGITS = 4


def fingerprint(architecture: Architecture) -> str:
    """sha256 in hex of what `architecture` does, holds and costs; takes some tens of milliseconds at tiny sizes."""
    arch = architecture.arch
    model = PipelineModel(arch, vocab_size=_VOCABULARY)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=torch_generator("fingerprint", name))
            parameter.add_(0.1 * noise)
    limit = model.learned.shape[0] if model.learned is not None else _TOKENS
    length = min(_TOKENS, limit)
    tokens = torch.randint(_VOCABULARY, (2, length), generator=torch_generator("fingerprint", "tokens"))
    with torch.enable_grad():
        loss, _ = model.loss(tokens, tokens.roll(-1, 1))
        gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    with torch.no_grad():
        logits = model(tokens)
    costs = [
        architecture_cost(arch, vocab_size=_VOCABULARY, batch=1, length=at, posterior=posterior)
        for at in (length, _LONG)
        for posterior in (False, True)
    ]
    seen = {
        "shapes": sorted((name, list(parameter.shape)) for name, parameter in model.named_parameters()),
        "outputs": [_number(value) for value in (loss, logits.mean(), logits.std(), logits[0, -1, 0])],
        "gradients": [_number(g.abs().sum()) for g in gradients if g is not None],
        "costs": [[cost.parameters, cost.flops, cost.kv_bytes, cost.state_bytes] for cost in costs],
        "decodes": model.caches,
        "train": architecture.train.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()


def _number(value: torch.Tensor) -> str:
    return f"{value.item():.{_DIGITS}e}"

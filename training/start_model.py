"""The model that evolution strategies start from: a small FSMT trained by gradient, once, and kept in the cache.

Choices: weights are drawn as fairseq draws them; a fixed number of steps, not of seconds, so that the same request
gives the same model; AdamW with linear warm-up and then linear decay to a tenth; label smoothing 0.1; sentences of
similar length share a batch. The cache folder is named by the hash of all that matters and appears at once or not at
all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel, ConfigDict, Field

from data.corpus import default_cache_dir
from data.keyed_random import numpy_generator, seed_of
from data.translation import TranslationData
from models.fsmt.configuration import FsmtShape, fsmt_config
from models.fsmt.decoding import pad_rows
from models.fsmt.loader import Translator, load_fsmt
from models.fsmt.tokenizer import build_tokenizer, encode_targets

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import FSMTForConditionalGeneration, FSMTTokenizer

_VERSION = 1
_CLIP = 1.0
_SMOOTHING = 0.1
_POOL = 32
"""Batches whose sentences are sorted by length together."""

Batch = tuple["Tensor", "Tensor", "Tensor"]
Progress = Callable[[int, int, float], None]


class StartSection(BaseModel):
    """How the start model is made.

    Attributes:
        shape: sizes of the model.
        steps: gradient steps; 0 leaves the weights as they were drawn.
        batch_size: sentences a step.
        learning_rate: peak of AdamW's.
        warmup: steps to reach it.
        seed: of weights and batches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: FsmtShape = FsmtShape()
    steps: int = Field(500, ge=0)
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    warmup: int = Field(100, ge=1)
    seed: int = Field(0, ge=0)


def start_model(
    section: StartSection, data: TranslationData, *, cache_dir: Path | None = None, progress: Progress | None = None
) -> Translator:
    """The start model of a task, from the cache or trained into it.

    Args:
        section: what to train.
        data: its training split is learnt from, and its texts make the vocabulary.
        cache_dir: $EVOSCALE_CACHE or ~/.cache/evoscale when None.
        progress: called with (steps done, steps, loss).

    Raises:
        TranslationError: the vocabulary is too small for the texts' characters.
        OSError: the cache cannot be written.
    """
    request = json.dumps([_VERSION, torch.__version__, data.hash(), section.model_dump(mode="json")], sort_keys=True)
    key = hashlib.sha256(request.encode()).hexdigest()[:32]
    folder = (cache_dir or default_cache_dir()) / "start_models" / key
    if not (folder / "config.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{key[:8]}-", dir=folder.parent))
        try:
            train(section, data, progress).save(made)
            os.replace(made, folder)
        except OSError:
            if not (folder / "config.json").is_file():  # another process may have been first
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    found = load_fsmt(str(folder))
    return Translator(model=found.model, tokenizer=found.tokenizer, name=f"start model {key[:8]}")


def train(section: StartSection, data: TranslationData, progress: Progress | None = None) -> Translator:
    """Train a start model; see `start_model`."""
    from transformers import FSMTForConditionalGeneration

    langs = (data.src_lang, data.tgt_lang)
    tokenizer = build_tokenizer(data.train.sources, data.train.targets, langs, section.shape.vocab_size)
    with torch.random.fork_rng(devices=[]):  # transformers draws weights and dropout from the global state
        torch.manual_seed(seed_of("start model", section.seed) % 2**63)
        model = FSMTForConditionalGeneration(fsmt_config(section.shape, langs, n_tokens=tokenizer.src_vocab_size))
        _draw_weights(model)
        if section.steps:
            _fit(model, section, _encoded(tokenizer, data, section.shape), progress)
    return Translator(model=model.eval(), tokenizer=tokenizer, name="start model")


def _draw_weights(model: FSMTForConditionalGeneration) -> None:
    """Glorot projections and tables of deviation d_model**-0.5, as fairseq does; the default 0.02 hardly learns."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not model.model.decoder.output_projection:
            torch.nn.init.xavier_uniform_(module.weight)
        elif type(module) is torch.nn.Embedding:
            torch.nn.init.normal_(module.weight, std=model.config.d_model**-0.5)
            module.weight.data[model.config.pad_token_id] = 0.0


def _fit(
    model: FSMTForConditionalGeneration,
    section: StartSection,
    pairs: list[tuple[list[int], list[int]]],
    progress: Progress | None,
) -> None:
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learnt, lr=section.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    batches = _batches(pairs, section, model.config.pad_token_id)
    for step in range(section.steps):
        warm = min(1.0, (step + 1) / section.warmup)
        left = (section.steps - step) / max(section.steps - section.warmup, 1)
        for group in optimiser.param_groups:
            group["lr"] = section.learning_rate * min(warm, max(0.1, min(1.0, left)))
        loss = _loss(model, next(batches))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learnt, _CLIP)
        optimiser.step()
        if progress is not None and (step % 20 == 19 or step + 1 == section.steps):
            progress(step + 1, section.steps, float(loss.detach()))
    model.eval()


def _loss(model: FSMTForConditionalGeneration, batch: Batch) -> Tensor:
    ids, mask, targets = batch
    start = torch.full_like(targets[:, :1], model.config.decoder_start_token_id)
    shifted = torch.cat([start, targets[:, :-1]], dim=1)
    logits = model(input_ids=ids, attention_mask=mask, decoder_input_ids=shifted, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=model.config.pad_token_id, label_smoothing=_SMOOTHING
    )


def _encoded(tokenizer: FSMTTokenizer, data: TranslationData, shape: FsmtShape) -> list[tuple[list[int], list[int]]]:
    longest = shape.max_position_embeddings - 2
    sources = [tokenizer(text).input_ids for text in data.train.sources]
    targets = encode_targets(tokenizer, data.train.targets)
    pairs = zip(sources, targets, strict=True)
    return [(source, target) for source, target in pairs if len(source) <= longest and len(target) <= longest]


def _batches(pairs: list[tuple[list[int], list[int]]], section: StartSection, pad: int) -> Iterator[Batch]:
    epoch = 0
    while True:
        draw = numpy_generator("start batches", section.seed, epoch)
        order = draw.permutation(len(pairs))
        pool = _POOL * section.batch_size
        batches = []
        for start in range(0, len(order), pool):
            rows = sorted(order[start : start + pool].tolist(), key=lambda row: (len(pairs[row][1]), row))
            batches += [rows[place : place + section.batch_size] for place in range(0, len(rows), section.batch_size)]
        for place in draw.permutation(len(batches)).tolist():
            chosen = [pairs[row] for row in batches[place]]
            ids, mask = pad_rows([source for source, _ in chosen], pad)
            targets, _ = pad_rows([target for _, target in chosen], pad)
            yield ids, mask, targets
        epoch += 1

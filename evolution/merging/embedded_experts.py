"""Three small experts from one common base, trained on this machine once and kept: models to merge without a download.

The base has seen a little of everything; each expert then learns one skill of `data.arithmetic_skills`
and forgets much of the others. They are ordinary Llama checkpoints on disk, with config and tokenizer.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.arithmetic_skills import ALPHABET, END, SKILLS, arithmetic_problems
from data.corpus import default_cache_dir
from data.keyed_random import numpy_generator, seed_of

Report = Callable[[str, int, int], None]
"""(model, step, steps)"""


@dataclass(frozen=True, kw_only=True)
class ExpertsConfig:
    """How base and experts are trained.

    Attributes:
        width: of the residual stream.
        layers: decoder layers.
        heads: attention heads.
        batch: problems a step.
        base_steps: steps of the base on all skills.
        expert_steps: further steps of each expert on its skill.
        learning_rate: peak of the base; experts use half.
        seed: of weights and batches.
    """

    width: int = 48
    layers: int = 3
    heads: int = 4
    batch: int = 128
    base_steps: int = 120
    expert_steps: int = 120
    learning_rate: float = 4e-3
    seed: int = 0


def experts_folder(
    config: ExpertsConfig | None = None, cache: Path | None = None, report: Report | None = None
) -> Path:
    """The folder with `base`, `total`, `largest` and `smallest`; trained on the first call.

    Args:
        config: how they are trained; every setting is part of the folder's name.
        cache: where folders are kept; $EVOSCALE_CACHE or ~/.cache/evoscale when None.
        report: called while training.
    """
    config = config or ExpertsConfig()
    content = json.dumps([asdict(config), "experts 1", ALPHABET], sort_keys=True)
    name = f"experts-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    folder = (cache or default_cache_dir()) / name
    if folder.is_dir():
        return folder
    partial = folder.with_name(f".{name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        _train_all(config, partial, report or (lambda model, step, steps: None))
        try:
            partial.rename(folder)
        except OSError:  # another process was first; its result is the same
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def arithmetic_tokenizer() -> Any:
    """A tokenizer of single characters, with END as the end of an answer; `<pad>` pads on the left."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.decoders import Fuse
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    vocabulary = {character: number for number, character in enumerate(ALPHABET)} | {"<pad>": len(ALPHABET)}
    inner = Tokenizer(WordLevel(vocabulary, unk_token="<pad>"))
    inner.pre_tokenizer = Split(Regex("."), "isolated")
    inner.decoder = Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token=END, padding_side="left", model_max_length=64
    )


def _train_all(config: ExpertsConfig, folder: Path, report: Report) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = arithmetic_tokenizer()
    shape = LlamaConfig(
        vocab_size=len(ALPHABET) + 1,
        hidden_size=config.width,
        intermediate_size=4 * config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=0.05,
        pad_token_id=len(ALPHABET),
        eos_token_id=ALPHABET.index(END),
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of("experts", config.seed))
        model = LlamaForCausalLM(shape)
    rate = config.learning_rate
    _train(model, "base", SKILLS, config.base_steps, rate, config, report)
    _save(model, tokenizer, folder / "base")
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for skill in SKILLS:
        model.load_state_dict(start)
        _train(model, skill, [skill], config.expert_steps, rate / 2, config, report)
        _save(model, tokenizer, folder / skill)


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _train(
    model: Any, name: str, skills: Sequence[str], steps: int, rate: float, config: ExpertsConfig, report: Report
) -> None:
    """AdamW with a short warm-up and a cosine; the loss counts the answer's tokens only."""
    import torch
    from torch.nn import functional as F  # noqa: N812

    problems = arithmetic_problems("train", skills=skills)
    answers = [f"{int(problem.answer):02d}{END}" for problem in problems]
    place = {character: number for number, character in enumerate(ALPHABET)}
    rows = torch.tensor(
        [[place[c] for c in problem.question + answer] for problem, answer in zip(problems, answers, strict=True)]
    )
    prompt = len(problems[0].question)
    random = numpy_generator("expert batches", config.seed, name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    for step in range(steps):
        factor = min(1.0, (step + 1) / 20) * (0.52 + 0.48 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
        batch = rows[torch.from_numpy(random.integers(0, len(rows), config.batch))]  # (B, T)
        logits = model(input_ids=batch[:, :-1]).logits[:, prompt - 1 :]  # (B, answer, V)
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, prompt:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        report(name, step + 1, steps)
    model.eval()

"""Hugging Face's Trainer on a model of the same shape: the peer of `evoscale bench harness`.

Two peers: transformers' own GPT-2 at the same layers, width, heads, vocabulary and length, without dropout and with
the same exact GELU and SDPA, as a user of Trainer would build it; and this project's model with the plain loss, which
leaves Trainer's loop and loss as the only difference. Both read the same windows of the same tokens.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from data.corpus import Corpus
    from training.run_spec import RunSpec


def peer_is_there() -> bool:
    """Whether transformers and accelerate, which its Trainer needs, are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("transformers", "accelerate"))


def gpt2_of(spec: RunSpec) -> nn.Module:
    """transformers' GPT-2 of the spec's shape."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=spec.vocab_size,
        n_positions=spec.seq_len,
        n_embd=spec.d_model,
        n_layer=spec.n_layers,
        n_head=spec.n_heads,
        activation_function="gelu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="sdpa",
    )
    model: nn.Module = GPT2LMHeadModel(config)
    return model


def same_model_of(spec: RunSpec) -> nn.Module:
    """This project's model, its loss made the plain way from all logits."""
    import torch
    from torch import Tensor

    from models.language_model import create_language_model

    class PlainLoss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = create_language_model(
                spec.framework,
                vocab_size=spec.vocab_size,
                d_model=spec.d_model,
                n_layers=spec.n_layers,
                n_heads=spec.n_heads,
                seed=spec.seed,
            )

        def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.model(input_ids)
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].reshape(-1, spec.vocab_size), labels[:, 1:].reshape(-1)
            )
            return {"loss": loss, "logits": logits}

    return PlainLoss()


def train_with_peer(
    model: nn.Module, spec: RunSpec, corpus: Corpus, steps: int, after_step: Callable[[], None]
) -> None:
    """Train `model` for `steps` steps with transformers' Trainer on this process's CPU.

    Raises:
        ImportError: transformers or accelerate is not installed.
    """
    import torch
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()

    class AfterStep(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_step_end(self, *arguments: Any, **named: Any) -> None:
            after_step()

    with tempfile.TemporaryDirectory(prefix="evoscale-peer-") as folder:
        arguments = TrainingArguments(
            output_dir=str(Path(folder)),
            max_steps=steps,
            per_device_train_batch_size=spec.batch_size,
            learning_rate=spec.learning_rate,
            weight_decay=spec.weight_decay,
            max_grad_norm=spec.clip,
            warmup_steps=spec.warmup_steps,
            lr_scheduler_type="cosine",
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            seed=spec.seed % 2**32,
            remove_unused_columns=False,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=_windows(spec, corpus, steps))
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(AfterStep())
        with torch.random.fork_rng(devices=[]):
            trainer.train()


def _windows(spec: RunSpec, corpus: Corpus, steps: int) -> Any:
    """A map-style dataset of the rows of the run's own batches."""
    import torch

    from data.batches import training_batch

    tokens = corpus.tokens("train")
    rows = [
        x
        for step in range(steps)
        for x in training_batch(tokens, seq_len=spec.seq_len, batch_size=spec.batch_size, seed=spec.seed, step=step)[0]
    ]

    class Windows(torch.utils.data.Dataset[dict[str, Any]]):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"input_ids": rows[index], "labels": rows[index]}

    return Windows()

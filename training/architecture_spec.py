"""One stretch of training of one architecture: a RunSpec that may stop before its schedule ends.

A promoted run continues from its checkpoint, so the learning rate follows the whole horizon (`steps`) and a stretch
only says where it stops. The optimiser's settings come from the architecture itself.
"""

from __future__ import annotations

import hashlib
import json

from pydantic import Field, model_validator

from frameworks.architecture.document import identity
from frameworks.architecture.schema import Architecture
from training.run_spec import DeviceKind, EvalSplit, Purpose, RunSpec, split_for


class StretchSpec(RunSpec):
    """As `RunSpec`; `steps` is the horizon of the schedule.

    Raises:
        pydantic.ValidationError: as `RunSpec`, or a stop beyond the horizon.
    """

    stop_at: int = Field(ge=1)
    """The step after which the model is evaluated and put aside."""

    @model_validator(mode="after")
    def _stops_within(self) -> StretchSpec:
        if self.stop_at > self.steps:
            raise ValueError(f"stop_at={self.stop_at} lies beyond the horizon of {self.steps} steps")
        return self

    @property
    def trajectory(self) -> str:
        """The key of the run that all its stretches share, in hex: they have one checkpoint."""
        fields = self.model_dump(mode="json", exclude={"stop_at", "eval_every"})
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def stretch_spec(
    architecture: Architecture,
    *,
    stop_at: int,
    horizon: int,
    seed: int,
    vocab_size: int,
    corpus_hash: str,
    tokenizer_hash: str,
    seq_len: int | None = None,
    batch_size: int | None = None,
    eval_tokens: int = 8192,
    purpose: Purpose = "search",
    device_kind: DeviceKind = "cpu",
) -> StretchSpec:
    """The stretch of `architecture` up to step `stop_at`; lengths that are None are the architecture's own.

    Raises:
        pydantic.ValidationError: a value outside its range.
    """
    train = architecture.train
    split: EvalSplit = split_for(purpose)
    return StretchSpec(
        candidate=identity(architecture),
        framework="architecture",
        size="own",
        d_model=architecture.arch.d_model,
        n_layers=len(architecture.arch.pipeline),
        n_heads=1,
        vocab_size=vocab_size,
        seq_len=seq_len or train.seq_len,
        batch_size=batch_size or train.batch_size,
        steps=horizon,
        stop_at=stop_at,
        learning_rate=train.lr,
        warmup_fraction=train.warmup_fraction,
        schedule=train.schedule,
        weight_decay=train.weight_decay,
        beta1=train.beta1,
        beta2=train.beta2,
        clip=train.clip,
        seed=seed,
        purpose=purpose,
        eval_split=split,
        eval_every=stop_at,
        eval_tokens=max(eval_tokens, seq_len or train.seq_len),
        corpus_hash=corpus_hash,
        tokenizer_hash=tokenizer_hash,
        precision=train.precision,
        device_kind=device_kind,
    )

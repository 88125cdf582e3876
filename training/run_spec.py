"""RunSpec: one measurement, fully described; its hash is its key.

A result is valid only for its key, and the same key is never computed twice. Seeds and
splits belong to a purpose: search and tuning see the `search_validation` split,
confirmation sees `confirmation_test` and has seeds of its own, so that a number used to
choose a candidate can never be used to confirm it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

HARNESS_VERSION = "1"
"""Raised whenever a change to the harness moves a loss; results of two versions are never compared."""

Purpose = Literal["search", "tuning", "confirmation"]
EvalSplit = Literal["search_validation", "confirmation_test"]
Precision = Literal["fp32", "bf16"]
DeviceKind = Literal["cpu", "cuda"]
Execution = Literal["eager", "compiled", "stacked"]

_SEED_RANGES: dict[str, range] = {
    "search": range(0, 10_000),
    "tuning": range(10_000, 20_000),
    "confirmation": range(20_000, 2**31),
}
_SPLITS: dict[str, EvalSplit] = {
    "search": "search_validation",
    "tuning": "search_validation",
    "confirmation": "confirmation_test",
}


def _known_purpose(purpose: str) -> str:
    if purpose not in _SEED_RANGES:
        raise ValueError(f"purpose {purpose!r} is unknown; allowed: {', '.join(_SEED_RANGES)}")
    return purpose


def seed_range(purpose: str) -> range:
    """The seeds that belong to `purpose`; the three ranges are disjoint.

    Raises:
        ValueError: unknown purpose.
    """
    return _SEED_RANGES[_known_purpose(purpose)]


def split_for(purpose: str) -> EvalSplit:
    """The evaluation split that belongs to `purpose`.

    Raises:
        ValueError: unknown purpose.
    """
    return _SPLITS[_known_purpose(purpose)]


def seed_for(purpose: str, offset: int) -> int:
    """The seed that a user's seed number (42, 43, ...) stands for within `purpose`.

    Raises:
        ValueError: unknown purpose, or the offset lies outside its range.
    """
    seeds = seed_range(purpose)
    if not 0 <= offset < len(seeds):
        raise ValueError(f"seed {offset} is outside 0..{len(seeds) - 1}, the seeds of purpose {purpose!r}")
    return seeds[offset]


class RunSpec(BaseModel):
    """One candidate at one size with one seed.

    Raises:
        pydantic.ValidationError: a ValueError; an unknown field, a value outside its range, or a
            seed or split that does not belong to the purpose.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: str = Field(min_length=1)
    """Identity of the program; `standard` or `evolvable` for the framework's own classes."""
    framework: str = Field(min_length=1)
    size: str = Field(min_length=1)
    """Name of the size on its ladder; the numbers below are what is built."""
    d_model: int = Field(ge=1)
    n_layers: int = Field(ge=1)
    n_heads: int = Field(ge=1)
    vocab_size: int = Field(ge=2)
    seq_len: int = Field(ge=1)
    """Tokens T in one training sequence."""
    batch_size: int = Field(ge=1)
    """Sequences B in one step."""
    steps: int = Field(ge=1)
    learning_rate: float = Field(gt=0, allow_inf_nan=False)
    """Peak learning rate of AdamW."""
    warmup_fraction: float = Field(0.1, ge=0, le=1)
    schedule: Literal["cosine", "constant"] = "cosine"
    final_lr_fraction: float = Field(0.1, ge=0, le=1)
    """Where the cosine ends, as a fraction of the peak."""
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Decoupled, on matrices only: norms, biases and other vectors are never decayed."""
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    clip: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Largest norm of the gradient; 0 switches clipping off."""
    seed: int
    purpose: Purpose
    eval_split: EvalSplit
    eval_every: int = Field(ge=1)
    """Steps between evaluations; the last step is always evaluated."""
    eval_tokens: int = Field(ge=1)
    """Most tokens of one evaluation; whole windows only, at least one."""
    corpus_hash: str = Field(min_length=1)
    tokenizer_hash: str = Field(min_length=1)
    precision: Precision = "fp32"
    device_kind: DeviceKind = "cpu"
    execution: Execution = "eager"
    """How the arithmetic is carried out; the others agree with `eager` to rounding, see `compilation` and `stacked`."""
    harness_version: str = HARNESS_VERSION

    @model_validator(mode="after")
    def _fits(self) -> RunSpec:
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads={self.n_heads} does not divide d_model={self.d_model}")
        if self.eval_tokens < self.seq_len:
            raise ValueError(f"eval_tokens={self.eval_tokens} holds no window of seq_len={self.seq_len}")
        seeds = seed_range(self.purpose)
        if self.seed not in seeds:
            raise ValueError(
                f"seed {self.seed} does not belong to purpose {self.purpose!r}, whose seeds are "
                f"{seeds.start}..{seeds.stop - 1}"
            )
        if self.eval_split != split_for(self.purpose):
            raise ValueError(
                f"eval_split {self.eval_split!r} does not belong to purpose {self.purpose!r}, which is "
                f"evaluated on {split_for(self.purpose)!r}"
            )
        return self

    def canonical_json(self) -> str:
        """Every field, sorted, in one line: the text that `key` hashes."""
        fields = self.model_dump(mode="json")
        if self.execution == "eager":  # keys from before there was a choice stay what they were
            del fields["execution"]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def key(self) -> str:
        """sha256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    @property
    def tokens(self) -> int:
        """Tokens trained on over the whole run."""
        return self.steps * self.batch_size * self.seq_len

    @property
    def warmup_steps(self) -> int:
        """Steps of linear warm-up."""
        return round(self.warmup_fraction * self.steps)

    def differences(self, other: RunSpec) -> dict[str, tuple[Any, Any]]:
        """Field name to (mine, theirs) wherever the two differ."""
        mine, theirs = self.model_dump(), other.model_dump()
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}

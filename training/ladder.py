"""Ladders of model sizes: what a candidate is measured at.

Four ladders: `debug` (does it run), `demo` (minutes), `laptop` (an hour or two) and `paper`
(the full study, for GPUs). A ladder also holds the order of a staged search: a cheap size for
every candidate, dearer ones for the best so far, always at a size's full horizon, because a
short run ranks the sprinters first.

Sizes count non-embedding parameters: n_layers * (12 d^2 + 4 d) + 2 d for the shell.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import cache

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.run_spec import DeviceKind, Precision, Purpose, RunSpec, split_for


class UnknownNameError(ValueError):
    """No ladder or size of that name; the message lists the near match and all names."""


def _look_up(kind: str, name: str, known: list[str]) -> str:
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise UnknownNameError(f"unknown {kind} {name!r}{hint} Known: {', '.join(known)}")


class Size(BaseModel):
    """One model size with the training settings that fit it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    d_model: int = Field(ge=1)
    n_layers: int = Field(ge=1)
    n_heads: int = Field(ge=1)
    steps: int = Field(ge=1)
    """Full horizon."""
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    seq_len: int = Field(ge=1)
    eval_every: int = Field(ge=1)
    eval_tokens: int = Field(ge=1)

    @property
    def n_parameters(self) -> int:
        """Non-embedding parameters of the shell with standard attention."""
        return self.n_layers * (12 * self.d_model**2 + 4 * self.d_model) + 2 * self.d_model


class Stage(BaseModel):
    """One stage of a search: every kept candidate runs at `size` with `seeds` paired seeds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: str
    seeds: int = Field(ge=1)
    keep: int | None = Field(None, ge=1)
    """How many of the best so far enter; None means every candidate."""


class Ladder(BaseModel):
    """Sizes from small to large, an unseen larger one, and the stages of a search over them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    summary: str
    sizes: tuple[Size, ...] = Field(min_length=1)
    unseen: Size | None = None
    """Larger than every size and never measured in a search; confirmation only."""
    vocab_size: int = Field(ge=2)
    corpus: str
    """Corpus source the ladder was made for."""
    stages: tuple[Stage, ...] = Field(min_length=1)
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, ge=0)
    warmup_fraction: float = Field(0.1, ge=0, le=1)
    final_lr_fraction: float = Field(0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _fits(self) -> Ladder:
        names = [size.name for size in self.all_sizes]
        if len(set(names)) != len(names):
            raise ValueError(f"sizes share a name: {', '.join(names)}")
        counts = [size.n_parameters for size in self.all_sizes]
        if counts != sorted(counts):
            raise ValueError(f"sizes must grow; their parameters are {counts}")
        searched = {size.name for size in self.sizes}
        for stage in self.stages:
            if stage.size not in searched:
                raise ValueError(f"stage size {stage.size!r} is not one of {', '.join(sorted(searched))}")
        return self

    @property
    def all_sizes(self) -> tuple[Size, ...]:
        """The sizes, the unseen one last."""
        return self.sizes if self.unseen is None else (*self.sizes, self.unseen)

    def size(self, name: str) -> Size:
        """The size called `name`, the unseen one included.

        Raises:
            UnknownNameError: there is none.
        """
        found = {size.name: size for size in self.all_sizes}
        return found[_look_up(f"size of ladder {self.name!r}", name, list(found))]

    def with_unseen(self) -> Ladder:
        """This ladder, with a size above its largest if it has none: 1.4 times as wide, for a validation.

        The rate falls as width^-0.75, which is how the rates of the ladders here were found to fall.
        """
        if self.unseen is not None:
            return self
        largest = self.sizes[-1]
        head_size = largest.d_model // largest.n_heads
        n_heads = max(largest.n_heads + 1, round(1.4 * largest.n_heads))
        unseen = largest.model_copy(
            update={
                "name": f"d{n_heads * head_size}",
                "d_model": n_heads * head_size,
                "n_heads": n_heads,
                "learning_rate": largest.learning_rate * (largest.n_heads / n_heads) ** 0.75,
            }
        )
        return Ladder.model_validate(self.model_dump() | {"unseen": unseen.model_dump()})

    def run_spec(
        self,
        size: Size | str,
        *,
        candidate: str,
        framework: str,
        seed: int,
        purpose: Purpose,
        corpus_hash: str,
        tokenizer_hash: str,
        vocab_size: int | None = None,
        steps: int | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        warmup_fraction: float | None = None,
        batch_size: int | None = None,
        precision: Precision = "fp32",
        device_kind: DeviceKind = "cpu",
    ) -> RunSpec:
        """The run of one candidate at one size; None takes the ladder's setting.

        Args:
            size: a size or its name.
            seed: a seed out of `seed_range(purpose)`.
            steps: another horizon; evaluations keep their share of it.

        Raises:
            UnknownNameError: the ladder has no such size.
            ValueError: the settings do not make a legal RunSpec.
        """
        at = self.size(size) if isinstance(size, str) else size
        horizon = at.steps if steps is None else steps
        return RunSpec(
            candidate=candidate,
            framework=framework,
            size=at.name,
            d_model=at.d_model,
            n_layers=at.n_layers,
            n_heads=at.n_heads,
            vocab_size=self.vocab_size if vocab_size is None else vocab_size,
            seq_len=at.seq_len,
            batch_size=at.batch_size if batch_size is None else batch_size,
            steps=horizon,
            learning_rate=at.learning_rate if learning_rate is None else learning_rate,
            warmup_fraction=self.warmup_fraction if warmup_fraction is None else warmup_fraction,
            final_lr_fraction=self.final_lr_fraction,
            weight_decay=self.weight_decay if weight_decay is None else weight_decay,
            clip=self.clip,
            seed=seed,
            purpose=purpose,
            eval_split=split_for(purpose),
            eval_every=max(1, round(at.eval_every * horizon / at.steps)),
            eval_tokens=at.eval_tokens,
            corpus_hash=corpus_hash,
            tokenizer_hash=tokenizer_hash,
            precision=precision,
            device_kind=device_kind,
        )


def _demo() -> Ladder:
    # Learning rates and horizons measured: at 200 steps linear attention wins, at 800 it loses.
    def at(d_model: int, steps: int, learning_rate: float) -> Size:
        return Size(
            name=f"d{d_model}",
            d_model=d_model,
            n_layers=2,
            n_heads=d_model // 16,
            steps=steps,
            learning_rate=learning_rate,
            batch_size=8,
            seq_len=64,
            eval_every=200,
            eval_tokens=14_336,
        )

    return Ladder(
        name="demo",
        summary="three tiny sizes on the standard library's text: minutes on two cores",
        sizes=(at(32, 800, 1e-2), at(48, 400, 8e-3), at(80, 400, 5e-3)),
        vocab_size=512,
        corpus="stdlib",
        stages=(Stage(size="d32", seeds=2), Stage(size="d48", seeds=2, keep=6), Stage(size="d80", seeds=2, keep=3)),
    )


def _laptop() -> Ladder:
    def at(d_model: int, steps: int, learning_rate: float) -> Size:
        return Size(
            name=f"d{d_model}",
            d_model=d_model,
            n_layers=2,
            n_heads=d_model // 16,
            steps=steps,
            learning_rate=learning_rate,
            batch_size=8,
            seq_len=64,
            eval_every=steps // 4,
            eval_tokens=65_536,
        )

    return Ladder(
        name="laptop",
        summary="four small sizes on the standard library's text: under two hours for one framework on two cores",
        sizes=(at(32, 4000, 1e-2), at(48, 4000, 8e-3), at(80, 4000, 5e-3), at(112, 4000, 4e-3)),
        unseen=at(160, 4000, 3e-3),
        vocab_size=1024,
        corpus="stdlib",
        stages=(
            Stage(size="d32", seeds=2),
            Stage(size="d48", seeds=2, keep=18),
            Stage(size="d80", seeds=2, keep=9),
            Stage(size="d112", seeds=2, keep=4),
        ),
    )


def _paper() -> Ladder:
    # Head size 24 throughout; width and depth both grow. 100k steps of 4,096 tokens each.
    def at(name: str, n_layers: int, d_model: int, learning_rate: float) -> Size:
        return Size(
            name=name,
            d_model=d_model,
            n_layers=n_layers,
            n_heads=d_model // 24,
            steps=100_000,
            learning_rate=learning_rate,
            batch_size=32,
            seq_len=128,
            eval_every=2_500,
            eval_tokens=262_144,
        )

    return Ladder(
        name="paper",
        summary="0.5M to 4M parameters on TinyStories, 100k steps: for GPUs",
        sizes=(
            at("0.5M", 3, 120, 3e-3),
            at("1M", 4, 144, 2.5e-3),
            at("2M", 6, 168, 2e-3),
            at("4M", 6, 240, 1.5e-3),
        ),
        unseen=at("8M", 6, 336, 1e-3),
        vocab_size=16_384,
        corpus="tinystories",
        stages=(
            Stage(size="0.5M", seeds=2),
            Stage(size="1M", seeds=2, keep=12),
            Stage(size="2M", seeds=2, keep=6),
            Stage(size="4M", seeds=2, keep=3),
        ),
        weight_decay=0.1,
        warmup_fraction=0.02,
    )


def _debug() -> Ladder:
    def at(d_model: int) -> Size:
        return Size(
            name=f"d{d_model}",
            d_model=d_model,
            n_layers=1,
            n_heads=d_model // 8,
            steps=12,
            learning_rate=1e-2,
            batch_size=4,
            seq_len=32,
            eval_every=6,
            eval_tokens=1_024,
        )

    return Ladder(
        name="debug",
        summary="two toy sizes, twelve steps: does it run at all",
        sizes=(at(16), at(24)),
        vocab_size=512,
        corpus="stdlib",
        stages=(Stage(size="d16", seeds=2), Stage(size="d24", seeds=2, keep=2)),
    )


_LADDERS: dict[str, Callable[[], Ladder]] = {"debug": _debug, "demo": _demo, "laptop": _laptop, "paper": _paper}


@cache
def ladder(name: str) -> Ladder:
    """The ladder called `name`: `debug`, `demo`, `laptop` or `paper`.

    Raises:
        UnknownNameError: there is none; the message names the near match and all ladders.
    """
    return _LADDERS[_look_up("ladder", name, list(_LADDERS))]()


def ladder_names() -> list[str]:
    """Names of all ladders, the cheapest first."""
    return list(_LADDERS)

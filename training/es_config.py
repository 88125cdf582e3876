"""The configuration of a fine-tuning by evolution strategies: one frozen tree, every field read."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.start_model import StartSection


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSection(_Section):
    """What is fine-tuned, and which of its matrices evolve."""

    name: str = "embedded"
    """`embedded` (a start model trained by gradient on the task's own data, cached), a folder, or a hub name."""
    freeze_nonlora: bool = True
    """True: only attention projections evolve (`lora`). False: every matrix, tables included (`full`)."""
    evolve_patterns: list[str] | None = None
    """Shell patterns of parameter names; where given, they choose instead of freeze_nonlora."""
    start: StartSection = StartSection()
    """How the embedded start model is made."""

    @property
    def mode(self) -> str:
        """`lora` or `full`."""
        return "lora" if self.freeze_nonlora else "full"


class OverrideSection(_Section):
    """Own step sizes of the matrices whose names match; the last match wins."""

    pattern: str
    """Shell pattern of parameter names, such as `model.decoder.*`."""
    sigma: float | None = Field(None, gt=0)
    lr_scale: float | None = Field(None, gt=0)


class EvolutionSection(_Section):
    """The evolution strategy."""

    noiser: str = "eggroll"
    rank: int = Field(1, ge=1)
    """Of low-rank noise; full-rank noisers do not read it."""
    sigma: float = Field(1e-3, gt=0)
    relative_sigma: bool = False
    """Sigma is a share of each matrix's own RMS at the start instead of an absolute deviation."""
    lr_scale: float = Field(1.0, gt=0)
    """Length of a step in sigmas: a step's RMS is about lr_scale * sigma."""
    lr_hold: float = Field(0.6, ge=0, le=1)
    """Share of the epochs at the full lr_scale; then it falls linearly ..."""
    lr_final: float = Field(0.05, ge=0, le=1)
    """... to this share of it in the last epoch."""
    solver: Literal["sgd", "momentum", "adam"] = "sgd"
    noise_reuse: int = Field(1, ge=0)
    """Epochs that share a noise; 0: one noise for ever."""
    generations_per_prompt: int = 8
    """Members that translate the same prompts: a group, within which fitness is compared. Even: pairs stay together."""
    parallel_generations_per_gpu: int = Field(256, ge=2)
    """Members of the population."""
    prompts_per_group: int = Field(1, ge=1)
    """Sentences that each member of a group translates; its fitness is their mean."""
    members_per_forward: int | None = Field(None, ge=2, multiple_of=2)
    """Members computed at once, None: all. Saves memory and changes no result."""
    averaging: float = Field(0.0, ge=0, lt=1)
    """Decay of a running average of the weights, which is what is validated and saved; 0: the weights themselves."""
    permute_fitness: bool = False
    """A control: real fitness, permuted within each group. It must not gain."""
    overrides: list[OverrideSection] = []

    @model_validator(mode="after")
    def _population_divides(self) -> EvolutionSection:
        group, members = self.generations_per_prompt, self.parallel_generations_per_gpu
        if group < 2 or group % 2:
            raise ValueError(
                f"evolution.generations_per_prompt is {group}; it must be even and at least 2, because antithetic "
                f"pairs share a prompt (nearest: {max(2, group + group % 2)})"
            )
        if members % group:
            raise ValueError(
                f"evolution.parallel_generations_per_gpu is {members}, which evolution.generations_per_prompt {group} "
                f"does not divide (nearest: {max(group, round(members / group) * group)})"
            )
        return self

    @property
    def n_groups(self) -> int:
        """Groups of members."""
        return self.parallel_generations_per_gpu // self.generations_per_prompt

    @property
    def prompts_per_epoch(self) -> int:
        """Sentences an epoch draws."""
        return self.n_groups * self.prompts_per_group


class TrainingSection(_Section):
    """How long, and what is looked at on the way."""

    num_epochs: int = Field(50, ge=0)
    validate_every: int = Field(5, ge=1)
    log_output_every: int = Field(10, ge=1)
    """Epochs between two printed example translations."""
    checkpoint_every: int = Field(1, ge=1)
    """Epochs between two checkpoints; one holds fitness only and is small."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many validations without a better one; None: never."""
    seed: int = Field(0, ge=0)


class TaskSection(_Section):
    """What is translated, and how it is scored."""

    dataset: str = "embedded"
    """`embedded`, a set on the hub (wmt14, wmt19 ...), a folder of NAME.LANG[.gz] files, or a .tsv[.gz] file."""
    src_lang: str = "en"
    tgt_lang: str = "de"
    files: list[str] = Field(["train", "val", "test"], min_length=3, max_length=3)
    """Names of the three splits in a folder."""
    max_train: int | None = Field(None, ge=1)
    validation_size: int | None = Field(None, ge=1)
    """Sentences of the validation split that are used; None: all."""
    test_size: int | None = Field(None, ge=1)
    max_length: int = Field(200, ge=1)
    """Most tokens of a translation; prompts longer than this are not drawn."""
    extra_tokens: int = Field(10, ge=0)
    """A translation may have so many tokens more than the epoch's longest reference: a tight limit hides rambling."""
    num_beams: int = Field(1, ge=1)
    no_repeat_ngram_size: int = Field(0, ge=0)
    chrf_weight: float = Field(0.5, ge=0, le=1)
    """Share of sentence chrF in the fitness; the rest is smoothed sentence BLEU."""
    batch_size: int = Field(128, ge=1)
    """Sentences translated at once in validation and test."""


class FinetuneConfig(_Section):
    """Everything a fine-tuning depends on."""

    name: str = "finetune"
    """Folder under the runs."""
    model: ModelSection = ModelSection()
    evolution: EvolutionSection = EvolutionSection()
    training: TrainingSection = TrainingSection()
    task: TaskSection = TaskSection()

"""Settings of a search over architectures: frozen, and every field is read."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evolution.config import ConfigError, CorpusSection, explain_validation

_S = TypeVar("_S", bound="SearchSettings")


class SearchSettings(BaseModel):
    """What training and scheduling in a search depend on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(1, ge=0, le=9_999)
    """Initial weights and batches of every run; also decides what is proposed."""
    seq_len: int = Field(128, ge=2, le=1 << 20)
    batch_size: int = Field(4, ge=1, le=4096)
    eval_tokens: int = Field(8192, ge=2)
    vocab_size: int = Field(512, ge=260, le=65_536)
    corpus: CorpusSection = CorpusSection()
    asha_min_steps: int = Field(10, ge=1)
    asha_max_steps: int = Field(60, ge=1)
    asha_eta: int = Field(3, ge=2)
    pdh_steps: int = Field(20, ge=1)
    """Steps of each PDH stage."""
    pdh_stages: int = Field(3, ge=1, le=20)
    slots: int = Field(4, ge=1, le=256)
    """Jobs that the schedule has under way at once; part of the result, unlike `workers`."""
    workers: int | None = Field(None, ge=1)
    """Worker processes; None: one a core. Never changes a result."""
    run_seconds: float = Field(3600.0, gt=0)
    """Most wall seconds of one stretch of training."""
    memory_gb: float = Field(4.0, gt=0)
    max_parameters: int = Field(4_000_000, ge=1)
    """A proposed architecture with more is not trained; the files given are, whatever they hold."""
    deep_steps: int | None = Field(None, ge=1)
    """Steps of the last look at the best; None leaves it out."""
    deep_seq_len: int | None = Field(None, ge=2)
    deep_batch_size: int | None = Field(None, ge=1)
    deep_top_k: int = Field(2, ge=1)
    device: str = Field("cpu", pattern="^(cpu|cuda)$")
    allow_unsandboxed: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> SearchSettings:
        if self.asha_max_steps < self.asha_min_steps:
            raise ValueError(f"asha_max_steps={self.asha_max_steps} is below asha_min_steps={self.asha_min_steps}")
        if self.deep_steps is None and (self.deep_seq_len is not None or self.deep_batch_size is not None):
            raise ValueError("deep_seq_len and deep_batch_size are read only with deep_steps")
        return self


class EvolutionSettings(SearchSettings):
    """Further settings of an evolution."""

    generations: int = Field(2, ge=0, le=10_000)
    population: int = Field(6, ge=1, le=1000)
    """Children a generation, immigrants included."""
    top_k: int = Field(3, ge=1)
    """Parents kept from each generation."""
    immigrants: int = Field(2, ge=0)
    """Children a generation that come from the seed architectures by several mutations."""
    crossover: float = Field(0.35, ge=0, le=1)

    @model_validator(mode="after")
    def _immigrants_fit(self) -> EvolutionSettings:
        if self.immigrants > self.population:
            raise ValueError(f"immigrants={self.immigrants} exceed population={self.population}")
        return self


def settings_from(kind: type[_S], given: dict[str, Any]) -> _S:
    """Settings with the values given; those that are None take the default.

    Raises:
        ConfigError: an unknown name, or a value outside its range.
    """
    try:
        return kind.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise ConfigError(explain_validation(error, kind, "search")) from None

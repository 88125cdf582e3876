"""Who proposes, with which guidance and for how much: these sections of an evolution's configuration.

A key never stands in a configuration: it comes from a file or from an environment
variable whose name is given. Prices are stated here or taken from `proposers/prices.yaml`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

KEY_VARIABLE = "OPENAI_API_KEY"
EMBEDDED = "embedded"
"""As a local model: the one that comes in a wheel."""
INGREDIENTS = ("failures", "inspirations", "curves")
"""What a prompt can be asked to do without, to measure what it is worth."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PriceSection(_Section):
    """Dollars a million tokens."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)


class ArmSection(_Section):
    """One proposer: the operator catalogue, a model run here, or an OpenAI-compatible endpoint."""

    kind: Literal["local", "catalogue", "endpoint"] = "catalogue"
    name: str | None = None
    """How records and reports call it; None takes the model's name."""
    model: str | None = None
    """An endpoint's model; for a local one `embedded` or the path of a GGUF file."""
    api_base: str | None = None
    """Base address that ends in /v1; None takes OpenAI's own."""
    api_key_file: Path | None = None
    """File that holds the key; without it the key is read from the variable below."""
    api_key_variable: str = KEY_VARIABLE
    """Name of the environment variable that holds the key."""
    prompt: Literal["block", "component"] | None = None
    """The whole block, or one component of it in a few words for small models; None: component for local models."""
    temperature: float | None = Field(None, ge=0, le=2)
    """None: 0.7, or 1.1 for a component, where variety is what a small model can offer."""
    max_tokens: int = Field(4096, ge=64)
    timeout: float | None = Field(None, gt=0)
    """Seconds a request; None: 120, or 900 for a local model, whose replies may not depend on a busy machine."""
    weight: float = Field(1.0, gt=0)
    """Share of the proposals where proposers are chosen by weight."""
    price: PriceSection | None = None
    """None takes the price table's; a model it does not know has no price."""

    @model_validator(mode="after")
    def _is_complete(self) -> ArmSection:
        if self.kind == "endpoint" and not self.model:
            raise ValueError("an endpoint needs a model: give --model, OPENAI_MODEL or proposer.model")
        if self.kind == "local" and not self.model:
            raise ValueError(f"a local model needs model: {EMBEDDED}, or the path of a GGUF file")
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.api_key_variable):
            # The value is not repeated: it may be a key.
            raise ValueError("api_key_variable is the NAME of an environment variable, such as OPENAI_API_KEY")
        if self.api_base and "@" in self.api_base.partition("//")[2].partition("/")[0]:
            raise ValueError("api_base holds a user name or key before '@'; give the key by file or environment")
        if self.api_base and "?" in self.api_base:
            raise ValueError("api_base holds a query after '?'; give the key by file or environment")
        return self

    @property
    def style(self) -> Literal["block", "component"]:
        """What is asked for: a whole block, or one component."""
        return self.prompt or ("component" if self.kind == "local" else "block")

    @property
    def patience(self) -> float:
        """Seconds a request may take."""
        if self.timeout is not None:
            return self.timeout
        return 900.0 if self.kind == "local" else 120.0

    @property
    def degree(self) -> float:
        """The sampling temperature."""
        if self.temperature is not None:
            return self.temperature
        return 1.1 if self.style == "component" else 0.7


class ProposerSection(ArmSection):
    """The only proposer, or, where `proposers` names several, what holds for all of them."""

    attempts: int = Field(4, ge=1)
    """Proposals tried an iteration until one is new and passes the guards."""
    backoff: float = Field(1.0, ge=0, le=60)
    """Seconds to wait after an endpoint's error, doubled at each further attempt."""
    inspirations: int = Field(3, ge=0)


class ChoiceSection(_Section):
    """How one of several proposers is chosen."""

    by: Literal["bandit", "weights"] = "bandit"
    per: Literal["proposal", "second", "dollar"] = "proposal"
    """What a gain is divided by. Seconds differ from run to run, so only `proposal` and `dollar` give the same run
    for the same seed (a replay always does)."""
    exploration: float = Field(1.0, ge=0)
    """Width of the upper confidence bound, in standard deviations of a single pair."""


class GuidanceSection(_Section):
    """What is withheld from a share of the prompts, so that the run measures what it is worth."""

    withhold: float = Field(0.2, ge=0, le=1)
    """Share of an LLM's proposals whose prompt lacks one ingredient."""
    ingredients: list[Literal["failures", "inspirations", "curves"]] = ["failures", "inspirations", "curves"]

    @model_validator(mode="after")
    def _names_some(self) -> GuidanceSection:
        if not self.ingredients or len(set(self.ingredients)) != len(self.ingredients):
            raise ValueError(f"ingredients must name each of {', '.join(INGREDIENTS)} at most once, and at least one")
        return self


class BudgetSection(_Section):
    """What a run may use; None is no limit. Each is checked before it is spent, with the worst case."""

    llm_tokens: int | None = Field(None, ge=1)
    dollars: float | None = Field(None, gt=0)
    seconds: float | None = Field(None, gt=0)
    """Wall seconds of the search, all sessions of a resumed run together."""
    training_tokens: int | None = Field(None, ge=1)
    """Tokens trained on, the confirmation's included: enough for it is set aside first."""
    evaluations: int | None = Field(None, ge=1)
    """Candidates measured in the search."""


class ControlsSection(_Section):
    """Control arms at the training budget of the search; they show what the guidance was worth."""

    best_of_n: bool = False
    """The same proposers, always from the start program."""
    random_operators: bool = False
    """The operator catalogue on a parent drawn at random, without selection."""
    tuning: bool = False
    """The start program at other learning rates."""
    seeds: int = Field(4, ge=2, le=50)
    """Fresh paired seeds the best of every arm is compared on."""

    @property
    def names(self) -> tuple[str, ...]:
        """The arms that are switched on."""
        return tuple(name for name in ("best_of_n", "random_operators", "tuning") if getattr(self, name))

"""The configuration of an evolution: one frozen tree, YAML in, every field read.

Defaults are those of the `demo` ladder. `load_config` merges a YAML file and `a.b=c`
settings over them; an unknown key is an error that names the nearest one.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evolution.proposer_config import (
    ArmSection,
    BudgetSection,
    ChoiceSection,
    ControlsSection,
    GuidanceSection,
    ProposerSection,
)


class ConfigError(ValueError):
    """A configuration cannot be used; the message names the key, the value and what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CorpusSection(_Section):
    """Where tokens come from; see `data.corpus.CorpusConfig`."""

    source: str = "stdlib"
    vocab_size: int | None = Field(None, ge=260, le=65536)
    """Vocabulary of the BPE tokenizer; None takes the ladder's."""
    max_bytes: int | None = Field(None, ge=1)
    text_field: str = "text"


class StageSection(_Section):
    """One stage of the search: every kept candidate runs at `size` with `seeds` paired seeds."""

    size: str
    seeds: int = Field(2, ge=1)
    keep: int | None = Field(None, ge=1)
    """How many of the best so far enter this stage; None means every candidate, at once."""
    steps: int | None = Field(None, ge=1)
    """Horizon; None takes the ladder's full horizon."""


class ConfirmationSection(_Section):
    """The predeclared confirmation on fresh seeds and the untouched test split."""

    seeds: int = Field(6, ge=2, le=1000)
    shortlist: int = Field(2, ge=1)
    alpha: float = Field(0.01, gt=0, lt=0.5)
    least_effect: float = Field(0.01, ge=0)
    """Least mean improvement in nats a token that counts as useful."""
    max_parameter_ratio: float = Field(1.01, ge=1)
    sizes: list[str] | None = None
    """Sizes to confirm at; None takes every size of the ladder and its unseen larger one."""


class PopulationSection(_Section):
    """OpenEvolve's islands and MAP-Elites archive."""

    islands: int = Field(2, ge=1)
    size: int = Field(40, ge=1)
    archive_size: int = Field(20, ge=1)
    exploration_ratio: float = Field(0.3, ge=0, le=1)
    exploitation_ratio: float = Field(0.5, ge=0, le=1)
    migration_interval: int = Field(6, ge=1)
    migration_rate: float = Field(0.2, ge=0, le=1)

    @model_validator(mode="after")
    def _ratios_fit(self) -> PopulationSection:
        if self.exploration_ratio + self.exploitation_ratio > 1:
            raise ValueError("population.exploration_ratio + population.exploitation_ratio may not exceed 1")
        return self


class LimitsSection(_Section):
    """What one worker may use."""

    guard_seconds: float = Field(60.0, gt=0)
    run_seconds: float | None = Field(None, gt=0)
    """Wall seconds a run; None: 20 times the reference's median at that size, at least 60."""
    memory_gb: float = Field(4.0, gt=0)
    allow_unsandboxed: bool = False


class RacingSection(_Section):
    """When a candidate is stopped before all its runs are made; see `evolution.racing`."""

    keep: float = Field(0.5, gt=0, le=1)
    """Share of those that reached a rung that clears its hurdle."""
    least_kept: int = Field(2, ge=1)
    """Candidates a hurdle lets through whatever the share."""
    least_population: int = Field(6, ge=2)
    """Candidates that must have reached a rung before it has a hurdle."""
    least_fidelity: float = Field(0.5, ge=-1, le=1)
    """Least Kendall tau of a rung's ranking with the final one for the rung to eliminate."""
    least_finished: int = Field(6, ge=3)
    """Candidates that must have gone all the way before a rung's fidelity is known."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Level of the sequential tests against the reference and the best."""
    noise_sd: float = Field(0.02, gt=0)
    """Spread of a paired difference over seeds in nats, until the run has measured its own."""
    least_freedom: int = Field(8, ge=1)
    """Degrees of freedom with which the run's own spread replaces it."""
    budget_tokens: int | None = Field(None, ge=1)
    """Training tokens the search may spend; when the next run would pass it, the search ends."""


class EvolveConfig(_Section):
    """Everything an evolution depends on."""

    framework: str
    name: str | None = None
    seed: int = Field(1, ge=0)
    iterations: int = Field(14, ge=0)
    ladder: str = "demo"
    in_flight: int = Field(4, ge=1)
    """Candidates proposed ahead of the oldest unmeasured one; part of the result, unlike `workers`."""
    workers: int | None = Field(None, ge=1)
    """Worker processes; None: one a core. Never changes a result."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where candidates train; auto takes the GPUs where there are any, one process each."""
    corpus: CorpusSection = CorpusSection()
    fitness: Literal["paired_gain", "slope", "extrapolated"] = "paired_gain"
    """What ranks candidates in the search. The last two need 2 and 3 sizes in the search; a candidate that is
    worse at every size can have the better slope, so neither is the default."""
    stages: list[StageSection] | None = None
    """Stages of the search; None takes the ladder's."""
    racing: RacingSection | None = None
    """Stop candidates that cannot win before all runs of the first stages are made; None measures all of them."""
    confirmation: ConfirmationSection = ConfirmationSection()
    proposer: ProposerSection = ProposerSection()
    proposers: list[ArmSection] = []
    """Several proposers; empty: `proposer` is the only one."""
    choice: ChoiceSection = ChoiceSection()
    guidance: GuidanceSection = GuidanceSection()
    budget: BudgetSection = BudgetSection()
    controls: ControlsSection = ControlsSection()
    population: PopulationSection = PopulationSection()
    limits: LimitsSection = LimitsSection()
    start_program: str | None = None
    """A program to start from beside the framework's own block, which stays the reference: a file (a whole
    program, or a block alone) or the name of a control."""

    @model_validator(mode="after")
    def _first_stage_takes_all(self) -> EvolveConfig:
        if self.stages is not None:
            if not self.stages:
                raise ValueError("stages is empty; give at least one stage")
            if self.stages[0].keep is not None:
                raise ValueError("stages[0].keep must be absent: the first stage measures every candidate")
            kept = [stage.keep for stage in self.stages if stage.keep is not None]
            if kept != sorted(kept, reverse=True):
                raise ValueError(f"stages keep {kept}; a later stage may not keep more than an earlier one")
            tail = [stage.keep is None for stage in self.stages]
            if tail != sorted(tail, reverse=True):
                raise ValueError("a stage that measures every candidate may not follow one that keeps the best")
        return self


def _known_keys(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    current: Any = model
    for part in path:
        if isinstance(part, int):
            continue
        field = current.model_fields.get(part)
        if field is None:
            return []
        found = [t for t in _types_of(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)]
        if not found:
            return []
        current = found[0]
    return list(current.model_fields)


def _types_of(annotation: Any) -> list[Any]:
    arguments = getattr(annotation, "__args__", None)
    if not arguments:
        return [annotation]
    return [kind for argument in arguments for kind in _types_of(argument)]


def explain_validation(error: ValidationError, model: type[BaseModel], source: str) -> str:
    """One sentence a problem: which key, the value seen, what is allowed, the nearest known key."""
    lines = []
    for problem in error.errors():
        location = tuple(problem["loc"])
        name = ".".join(str(part) for part in location) or "configuration"
        if problem["type"] == "extra_forbidden":
            known = _known_keys(model, location[:-1])
            near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.4)
            hint = f"; did you mean '{near[0]}'?" if near else "."
            lines.append(f"{source}: unknown key '{name}'{hint} Known here: {', '.join(known)}")
        elif problem["type"] == "missing":
            lines.append(f"{source}: '{name}' is required")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            seen = "" if problem["type"] == "value_error" else f" (got {problem.get('input')!r})"
            lines.append(f"{source}: {name}: {message}{seen}")
    return "\n".join(lines)


def _set_path(tree: dict[str, Any], setting: str) -> None:
    key, separator, text = setting.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {setting!r}: expected KEY=VALUE, such as confirmation.seeds=10")
    parts = key.strip().split(".")
    node: Any = tree
    for part in parts[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {setting!r}: '{part}' is not a section")
    try:
        node[parts[-1]] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting!r}: the value is not YAML: {error}") from None


def read_tree(path: Path | None, settings: list[str] | None = None) -> tuple[dict[str, Any], str]:
    """The keys and values of a YAML file with `settings` (`a.b=c`) laid over them, and its name for messages.

    Raises:
        ConfigError: unreadable file, not a mapping, or a setting that is none.
    """
    tree: dict[str, Any] = {}
    source = "configuration"
    if path is not None:
        source = str(path)
        try:
            loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"--config {path}: no such file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--config {path}: cannot be read: {error}") from None
        except yaml.YAMLError as error:
            raise ConfigError(f"--config {path}: not valid YAML: {' '.join(str(error).split())}") from None
        if loaded is not None and not isinstance(loaded, dict):
            raise ConfigError(f"--config {path}: expected keys and values, got {type(loaded).__name__}")
        tree = loaded or {}
    for setting in settings or []:
        _set_path(tree, setting)
    return tree, source


def load_config(
    path: Path | None = None, settings: list[str] | None = None, overrides: dict[str, Any] | None = None
) -> EvolveConfig:
    """Read a YAML file, lay `settings` (`a.b=c`) and then `overrides` over it, and validate.

    Args:
        path: YAML file, or None for the defaults.
        settings: `a.b=c` strings, the values YAML.
        overrides: dotted key to value; None values are skipped.

    Raises:
        ConfigError: unreadable file, not a mapping, unknown key, or a value outside its range.
    """
    tree, source = read_tree(path, settings)
    for key, value in (overrides or {}).items():
        if value is not None:
            node = tree
            *parents, last = key.split(".")
            for part in parents:
                node = node.setdefault(part, {})
            node[last] = value
    try:
        return EvolveConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explain_validation(error, EvolveConfig, source)) from None

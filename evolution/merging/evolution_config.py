"""Settings of a merge evolution: what is merged, what it is scored on, and how recipes are searched."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evolution.config import explain_validation
from evolution.merging.recipe import read_yaml
from frameworks.merging.merge_error import MergeError
from frameworks.merging.method import method

Space = Literal["parameter_space", "layer_gate", "dataflow"]


class EvolutionConfig(BaseModel):
    """One merge evolution; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "merge"
    """Folder under --runs."""
    seed: int = Field(0, ge=0)
    """Of the search, of drawn problems and of random masks."""
    base_model: str | None = None
    models: list[str] = []
    """Paths or names on the hub; none: the embedded experts."""
    merge_method: str = "task_arithmetic"
    groups: int = Field(1, ge=1)
    """Groups of layers with weights of their own."""
    search_densities: bool = True
    weight_range: tuple[float, float] = (0.0, 1.0)
    coefficients: Literal["free", "simplex"] = "free"
    """`simplex` divides weights by their sum."""

    space: Space = "parameter_space"
    """Where a search that is not hybrid takes place."""
    use_cmaes: bool = True
    """CMA-ES; else a plain genetic search."""
    use_hybrid_ps_dfs: bool = False
    """Parameter space first, then data flow over the winner and the sources."""
    multi_objective: bool = False
    """NSGA-II over the accuracy of each skill (or language) in the parameter space, in place of CMA-ES."""
    num_generations: int = Field(15, ge=1)
    population_size: int | None = Field(None, ge=4)
    """None: 4 + floor(3 ln n)."""
    sigma: float = Field(1 / 6, gt=0)
    patience: int = Field(50, ge=1)
    ps_candidates_multiplier: int = Field(3, ge=1)
    """Candidates of the parameter space that are reported: this times the number of sources."""
    ps_in_pool: int = Field(1, ge=1)
    """How many of them join the pool of the data flow; the paper's hybrid takes the best one."""
    dfs_generations: int = Field(10, ge=1)
    repetitions: int = Field(1, ge=1)
    w_mode: Literal["full", "per_hop", "none"] = "per_hop"
    target_fitness_gain: float = Field(0.235, gt=0)
    """Relative gain over the best source that is reported as reached or not; it is this project's own target."""
    stop_at_target: bool = False
    random_search: bool = True
    """Also spend the same number of evaluations on random points of the parameter space."""

    benchmark_name: Literal["arithmetic", "gsm8k", "mgsm"] = "arithmetic"
    use_real_fitness: bool = True
    """Accuracy of decoded answers; else the probability of the gold answer. The report is always accuracy."""
    evolve: str | None = None
    """Problems of the search, such as gsm8k:train or gsm8k:test[250:]; None: the benchmark's default."""
    report: str | None = None
    """Problems of the report, such as mgsm:ja; None: the benchmark's default."""
    promote_share: float = Field(0.2, gt=0, lt=1)
    """Share of `evolve` that is held out to choose between finalists (not for arithmetic, which has its own)."""
    max_benchmark_samples: int | None = Field(300, ge=1)
    """Problems of the search."""
    report_samples: int | None = Field(None, ge=1)
    data_folder: Path | None = None
    """With sub-folders gsm8k and mgsm; None: through `datasets`."""
    batch_size: int = Field(300, ge=1)
    max_new_tokens: int | None = Field(None, ge=1)
    """None: 4 for arithmetic, else 256."""
    shots: int = Field(0, ge=0)
    beams: int = Field(1, ge=1)
    block: int = Field(100, ge=1)
    """Problems between two decisions of the racing."""
    racing: bool = True

    @model_validator(mode="after")
    def _fits_together(self) -> EvolutionConfig:
        if not self.name or "/" in self.name or "\\" in self.name or self.name.startswith((".", "-")):
            raise ValueError(f"name {self.name!r} cannot name a folder; use letters, digits, '-', '_' and '.'")
        if self.models and len(self.models) < 2:
            raise ValueError(f"models holds {len(self.models)}; at least two are merged")
        if len(set(self.models)) != len(self.models):
            raise ValueError("models holds one model twice")
        if self.benchmark_name != "arithmetic" and not self.models:
            raise ValueError(f"the embedded experts know arithmetic only; give models for {self.benchmark_name}")
        chosen = method(self.merge_method)
        if self.models and chosen.needs_base and self.base_model is None:
            raise ValueError(f"{chosen.name} needs a base model; set base_model")
        if self.multi_objective and (self.use_hybrid_ps_dfs or self.space != "parameter_space" or self.racing):
            raise ValueError("multi_objective searches the parameter space and needs racing: false and no hybrid")
        if not self.use_real_fitness and self.racing:
            raise ValueError(
                "racing needs answers that are right or wrong; set racing: false with use_real_fitness: false"
            )
        return self

    @property
    def mode(self) -> str:
        """In one word: `hybrid`, or the space with the search."""
        if self.use_hybrid_ps_dfs:
            return "hybrid"
        if self.multi_objective:
            return "parameter_space by NSGA-II"
        return f"{self.space} by {'CMA-ES' if self.use_cmaes else 'genetic search'}"


def load_evolution_config(
    path: Path, settings: list[str] | None = None, name: str | None = None, seed: int | None = None
) -> EvolutionConfig:
    """Read the settings from a YAML file, with `key=value` settings laid over it.

    Args:
        path: the file.
        settings: such as `num_generations=5`; the value is YAML.
        name: replaces the file's.
        seed: replaces the file's.

    Raises:
        MergeError: unreadable, an unknown key, or a value that is not allowed.
    """
    content: dict[str, Any] = read_yaml(path)
    for setting in settings or []:
        key, separator, text = setting.partition("=")
        if not separator or not key.strip():
            raise MergeError(f"--set {setting!r}: expected KEY=VALUE, such as num_generations=5")
        try:
            content[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise MergeError(f"--set {setting!r}: the value is not YAML: {' '.join(str(error).split())}") from None
    content |= {key: value for key, value in (("name", name), ("seed", seed)) if value is not None}
    try:
        return EvolutionConfig.model_validate(content)
    except ValidationError as error:
        raise MergeError(explain_validation(error, EvolutionConfig, str(path))) from None

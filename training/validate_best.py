"""The last step of the chain: two arms, each with its tuned settings, on ten seeds at every size and a larger one.

This module says which runs a validation has and where each keeps its checkpoints and curve; the plan, the seal and the
verdict are the ledger's (`evolution.validating`, `evoscale validate RUN`). A run's folder holds every checkpoint
(`step_*.ckpt`, read by `training.checkpoint.read_checkpoint`) and its curve (`history.json`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.ladder import Ladder
from training.run_files import HISTORY
from training.run_spec import RunSpec, seed_for


class ValidationSeeds(BaseModel):
    """Which fresh seeds a validation uses, in a user's numbers: 42 to 51 unless told otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: int = Field(42, ge=0)
    count: int = Field(10, ge=2, le=1000)

    @model_validator(mode="after")
    def _fits(self) -> ValidationSeeds:
        seed_for("confirmation", self.first + self.count - 1)
        return self

    def seeds(self) -> list[int]:
        """The seeds of the confirmation range that these numbers stand for."""
        return [seed_for("confirmation", self.first + index) for index in range(self.count)]


def validation_sizes(ladder: Ladder) -> tuple[str, ...]:
    """Every size of the ladder, and one above that no search has seen."""
    return tuple(size.name for size in ladder.with_unseen().all_sizes)


def run_folder(directory: Path, spec: RunSpec) -> Path:
    """Where a run of a validation keeps its checkpoints and curve: `directory`/size/arm/seed."""
    return directory / spec.size / spec.candidate[:12] / f"seed-{spec.seed}"


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """The curve a run left in `folder`: step, train_loss and val_loss at each evaluation.

    Raises:
        ValueError: there is none, or the file is damaged.
    """
    path = folder / HISTORY
    try:
        curve = json.loads(path.read_text(encoding="utf-8"))["curve"]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no history of a run ({error})") from None
    return list(curve)

"""Training settings of one arm, relative to a ladder's, so that what was tuned at one size holds for all.

A learning rate is tuned as a factor on the ladder's rate of each size, a batch as a factor on its batch; warm-up
and weight decay are taken as they are. The horizon follows the batch, so that every setting trains on the same
number of tokens (to within one step) and none wins by spending more.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from training.ladder import Ladder, Size


class TunedSettings(BaseModel):
    """What a search over hyperparameters chooses.

    Raises:
        pydantic.ValidationError: a ValueError; an unknown field or a value outside its range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate_factor: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Times the ladder's peak learning rate of a size."""
    warmup_fraction: float = Field(ge=0, le=1)
    weight_decay: float = Field(ge=0, allow_inf_nan=False)
    batch_factor: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Times the ladder's sequences a step; steps shrink by as much."""

    @classmethod
    def of_ladder(cls, ladder: Ladder) -> TunedSettings:
        """The ladder's own settings."""
        return cls(warmup_fraction=ladder.warmup_fraction, weight_decay=ladder.weight_decay)

    def overrides(self, size: Size) -> dict[str, Any]:
        """Arguments for `Ladder.run_spec` at `size`."""
        batch_size = max(1, round(size.batch_size * self.batch_factor))
        return {
            "learning_rate": size.learning_rate * self.learning_rate_factor,
            "warmup_fraction": self.warmup_fraction,
            "weight_decay": self.weight_decay,
            "batch_size": batch_size,
            "steps": max(1, round(size.steps * size.batch_size / batch_size)),
        }

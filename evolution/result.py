"""What an evolution ended with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Result:
    """What an evolution ended with.

    Attributes:
        verdicts: `analysis.promotion.Verdict` as JSON, one a shortlisted candidate; empty when nothing led.
        n_candidates: distinct candidates measured without failure, the reference not counted.
        sentence: the end in plain words.
    """

    verdicts: tuple[Mapping[str, Any], ...]
    n_candidates: int
    sentence: str

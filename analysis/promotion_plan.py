"""The predeclared plan of a confirmation: what will be compared, how, and what would count.

A plan is written before the sealed split is opened, and its hash names the opening in the ledger.
Whatever could be bent after seeing the numbers (candidates, seeds, sizes, level, least effect)
is a field here and so is part of the hash.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

PRIMARY_STATISTIC = "size_averaged_paired_difference"
"""Per seed, the mean over sizes of candidate loss minus reference loss."""


@dataclass(frozen=True, kw_only=True)
class PromotionPlan:
    """What a confirmation will compare and what it takes to be promoted.

    Attributes:
        shortlist: candidate ids, the whole family the correction covers.
        reference: id of the reference arm.
        sizes: names of all sizes to be run, a larger unseen one included; at least one.
        seeds: fresh seeds, at least two; both arms run every seed at every size.
        split: name of the sealed split the losses are measured on.
        alpha: level of the promotion, after correction.
        least_effect: smallest useful gain, nats, not negative.
        max_parameter_ratio: most parameters allowed, relative to the reference at the same size.
        correction: over the shortlist; Holm's is the only one.
        alternative: the candidate's loss is lower; the only one.
        primary_statistic: what is tested; the only one.
    """

    shortlist: tuple[str, ...]
    reference: str
    sizes: tuple[str, ...]
    seeds: tuple[int, ...]
    split: str = "confirmation_test"
    alpha: float = 0.01
    least_effect: float = 0.01
    max_parameter_ratio: float = 1.01
    correction: Literal["holm"] = "holm"
    alternative: Literal["one-sided"] = "one-sided"
    primary_statistic: Literal["size_averaged_paired_difference"] = "size_averaged_paired_difference"

    def __post_init__(self) -> None:
        for name in ("shortlist", "sizes", "seeds"):
            values = getattr(self, name)
            if isinstance(values, str) or not isinstance(values, list | tuple):
                raise TypeError(f"plan: {name} must be a list or tuple; got {values!r}")
            object.__setattr__(self, name, tuple(values))
            if len(set(values)) != len(values):
                twice = sorted({str(value) for value in values if list(values).count(value) > 1})
                raise ValueError(f"plan: {name} holds {', '.join(twice)} more than once")
        for name in ("shortlist", "sizes"):
            if not getattr(self, name) or not all(isinstance(value, str) and value for value in getattr(self, name)):
                raise ValueError(f"plan: {name} must hold at least one name; got {getattr(self, name)!r}")
        if not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in self.seeds):
            raise ValueError(f"plan: seeds must be whole numbers; got {self.seeds!r}")
        if len(self.seeds) < 2:
            raise ValueError(
                f"plan: at least 2 paired seeds are needed, 6 or more to be believed; got {len(self.seeds)}"
            )
        for name in ("reference", "split"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"plan: {name} must be a name; got {getattr(self, name)!r}")
        if self.reference in self.shortlist:
            raise ValueError(f"plan: the reference {self.reference!r} cannot be on the shortlist")
        for name, low, high in (("alpha", 0.0, 0.5), ("least_effect", None, None), ("max_parameter_ratio", 0.0, None)):
            _check_number(name, getattr(self, name), low, high)
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.least_effect < 0:
            raise ValueError(f"plan: least_effect is a size in nats and cannot be negative; got {self.least_effect!r}")
        only = {"correction": "holm", "alternative": "one-sided", "primary_statistic": PRIMARY_STATISTIC}
        for name, allowed in only.items():
            if getattr(self, name) != allowed:
                raise ValueError(f"plan: {name} must be {allowed!r}; got {getattr(self, name)!r}")

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values; `from_json` is its inverse."""
        plain = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PromotionPlan:
        """A plan from what `to_json` gave.

        Raises:
            ValueError: an unknown field (the message names the nearest known one), a missing one, or a bad value.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        for name in value:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"plan: unknown field {name!r}{hint} Known: {', '.join(known)}")
        needed = [name for name, field in known.items() if field.default is dataclasses.MISSING and name not in value]
        if needed:
            raise ValueError(f"plan: missing {', '.join(needed)}")
        return cls(**value)

    @property
    def hash(self) -> str:
        """sha256 of the canonical JSON, in hex."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def _check_number(name: str, value: object, low: float | None, high: float | None) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or (low is not None and value <= low) or (high is not None and value >= high):  # type: ignore[operator]
        between = (
            f" strictly between {low} and {high}" if high is not None else f" above {low}" if low is not None else ""
        )
        raise ValueError(f"plan: {name} must be a finite number{between}; got {value!r}")

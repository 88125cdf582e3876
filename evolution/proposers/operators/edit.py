"""What an operator adds to a block, as plain statements for each slot.

An `Edit` is written in the canonical names of `slots.CANONICAL`. Inserted statements go
right before the slot's return, so edits of several operators stack in the order in which
they were applied, and everything the parent wrote stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

UNNORMALISED = "torch.ones_like(w[..., :1])"
"""A `row_sum` of one: the kernel's values are the coefficients."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Statements to add, by slot; an empty string leaves the slot alone.

    Attributes:
        init: at the end of `__init__`; may use `d_model`, `n_heads`, `head_dim`.
        signals: on `q`, `k`, `v` (B, H, T, D), with `x` (B, T, C).
        scores: on `s` (B, H, T, T) before masking, with `x`, `q`, `k`.
        masked: on `s` after masking, -inf outside the past.
        kernel: replaces softmax's exponential; the last statement assigns `w` (B, H, T, T), zero outside the past.
        row_sum: denominator that goes with `kernel`; empty for the sum of the row.
        coefficients: on `w` after the kernel; normalised already only in `matrix_mixer`.
        output: on `y` (B, H, T, D), with `x` and `v`.
        optional: body of the framework's optional method, ending in a `return`.
    """

    init: str = ""
    signals: str = ""
    scores: str = ""
    masked: str = ""
    kernel: str = ""
    row_sum: str = ""
    coefficients: str = ""
    output: str = ""
    optional: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to add."""
        return not any(getattr(self, field.name) for field in fields(self))

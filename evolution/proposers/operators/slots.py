"""Where a framework's mechanism can be edited: the same slots under each framework's own names.

Every attention framework computes signals (q, k, v), scores (B, H, T, T), coefficients from
the masked scores, and outputs (B, H, T, D); only the methods and variables are called
differently. Operators are written once, against the canonical names `x q k v` (signals),
`s` (scores), `w` (coefficients) and `y` (output); this table says what they are called here.
"""

from __future__ import annotations

from dataclasses import dataclass

CANONICAL = ("x", "q", "k", "v", "s", "w", "y")


@dataclass(frozen=True, kw_only=True)
class Slots:
    """The slots of one framework.

    Attributes:
        block_class: class whose methods are the slots.
        scores: method that ends with the scores.
        scores_call: the scores are the first argument of this method's call in the return; None: they are returned.
        coefficients: method that turns masked scores into coefficients.
        coefficient: the coefficients' variable in it.
        softmax: the statement that computes them in the shipped block.
        softmax_spellings: right-hand sides that are the same function.
        normaliser: method whose return holds the row sum; None where `softmax` divides already.
        row_sum: that return with `{row_sum}` for the denominator, or the dividing statement.
        plain_return: that return in the shipped block; None where there is none.
        output: method that ends with the output.
        optional: method that returns None in the shipped block, the framework's own extra term.
    """

    block_class: str
    scores: str
    scores_call: str | None
    coefficients: str
    coefficient: str
    softmax: str
    softmax_spellings: tuple[str, ...]
    normaliser: str | None
    row_sum: str
    plain_return: str | None
    output: str
    optional: str
    signals: str = "signals"


_EXP = "torch.exp(s - s.amax(-1, keepdim=True))"

SLOTS: dict[str, Slots] = {
    "coefficient_dynamics": Slots(
        block_class="Dynamics",
        scores="readout",
        scores_call=None,
        coefficients="phi",
        coefficient="a",
        softmax=f"a = {_EXP}",
        softmax_spellings=(_EXP, "torch.softmax(s, dim=-1)"),
        normaliser="eta",
        row_sum="return {row_sum}",
        plain_return="return a.sum(-1, keepdim=True)",
        output="output",
        optional="log_transition",
    ),
    "test_time_regression": Slots(
        block_class="Regressor",
        scores="log_kernel",
        scores_call=None,
        coefficients="fit",
        coefficient="w",
        softmax=f"w = {_EXP}",
        softmax_spellings=(_EXP, "torch.softmax(s, dim=-1)"),
        normaliser="fit",
        row_sum="return (w @ v) / ({row_sum})",
        plain_return="return (w @ v) / w.sum(-1, keepdim=True)",
        output="predict",
        optional="log_weights",
    ),
    "matrix_mixer": Slots(
        block_class="Mixer",
        scores="mixing_matrix",
        scores_call="entries",
        coefficients="entries",
        coefficient="m",
        softmax="m = torch.softmax(s, dim=-1)",
        softmax_spellings=("torch.softmax(s, dim=-1)", "F.softmax(s, dim=-1)", "s.softmax(-1)"),
        normaliser=None,
        row_sum="m = m / ({row_sum})",
        plain_return=None,
        output="output",
        optional="structure",
    ),
}

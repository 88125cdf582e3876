"""Outcome of a run: a tagged type, so that a failure is never a number.

Only an adapter at the edge (a search engine that wants a score) may map outcomes to
numbers. Every number inside is finite; a loss that is not is `Diverged`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Finite = Annotated[float, Field(allow_inf_nan=False)]
CurvePoint = tuple[int, Finite, Finite]


class _Outcome(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Completed(_Outcome):
    """The run went to its horizon."""

    status: Literal["completed"] = "completed"
    val_loss: Finite
    """Average nats a token on the evaluation split, after the last step."""
    curve: list[CurvePoint]
    """[step, mean training loss since the point before, validation loss] at every evaluation."""
    n_parameters: int = Field(ge=0)
    """Trainable parameters without the embedding."""
    tokens: int = Field(ge=0)
    """Tokens trained on."""
    flops: int = Field(ge=0)
    """Matrix FLOPs of the training steps, counted on the candidate itself."""
    cpu_seconds: Finite = Field(ge=0)
    seconds: Finite = Field(ge=0)
    """Wall seconds."""
    peak_memory_bytes: int = Field(ge=0)
    """Most resident memory of the process on CPU; most allocated memory on a GPU."""


class Rejected(_Outcome):
    """A guard refused the candidate; nothing was trained."""

    status: Literal["rejected"] = "rejected"
    guard: str
    reason: str
    evidence: dict[str, Any] = Field(default_factory=dict)


class Crashed(_Outcome):
    """The candidate raised."""

    status: Literal["crashed"] = "crashed"
    error: str
    """`ExceptionType: message`."""
    detail: str = ""
    """The candidate's own lines of the traceback, innermost last."""


class Diverged(_Outcome):
    """The loss left the range of a model that learns."""

    status: Literal["diverged"] = "diverged"
    step: int = Field(ge=0)
    """Steps done before the loss that gave it away."""
    reason: str


class TimedOut(_Outcome):
    """The run was stopped by the clock."""

    status: Literal["timed_out"] = "timed_out"
    limit_seconds: Finite = Field(ge=0)


class OutOfMemory(_Outcome):
    """The run asked for more memory than it may have."""

    status: Literal["out_of_memory"] = "out_of_memory"
    limit_bytes: int | None = Field(None, ge=0)
    """The limit it met; None where the machine itself was the limit."""


Outcome = Completed | Rejected | Crashed | Diverged | TimedOut | OutOfMemory

_ADAPTER: TypeAdapter[Outcome] = TypeAdapter(Annotated[Outcome, Field(discriminator="status")])


def outcome_from_json(value: dict[str, Any]) -> Outcome:
    """The outcome that `outcome.model_dump(mode="json")` wrote.

    Raises:
        pydantic.ValidationError: a ValueError; not an outcome, or a number that is not finite.
    """
    return _ADAPTER.validate_python(value)


def explain(outcome: Outcome) -> str:
    """One paragraph for whoever proposes the next candidate: what happened and what to change."""
    if isinstance(outcome, Completed):
        course = ", ".join(f"{val:.4f} at step {step}" for step, _, val in outcome.curve[-4:])
        text = (
            f"It trained to a validation loss of {outcome.val_loss:.4f} nats a token with "
            f"{outcome.n_parameters:,} parameters in {outcome.seconds:.1f} s."
        )
        return f"{text} Its course: {course}." if course else text
    if isinstance(outcome, Rejected):
        evidence = "; ".join(f"{name}: {value}" for name, value in list(outcome.evidence.items())[:6])
        seen = f" Evidence: {evidence}." if evidence else ""
        return (
            f"It was rejected by the guard '{outcome.guard}' before any training: {outcome.reason.rstrip('.')}.{seen} "
            "Change the block so that this guard passes; it was not measured."
        )
    if isinstance(outcome, Crashed):
        where = f" It happened here:\n{outcome.detail}" if outcome.detail else ""
        return f"It crashed with {outcome.error.rstrip('.')}.{where}\nMend that line; the candidate was not measured."
    if isinstance(outcome, Diverged):
        return (
            f"It diverged at step {outcome.step}: {outcome.reason.rstrip('.')}. The training settings are fixed, so "
            "keep outputs and gradients in a range they can bear: normalise, start close to the reference, or bound "
            "exponents."
        )
    if isinstance(outcome, TimedOut):
        return (
            f"It did not finish within {outcome.limit_seconds:g} s. It is too slow: replace Python loops over "
            "positions by whole-tensor operations, and avoid work that grows faster than T x T."
        )
    limit = f" of {outcome.limit_bytes / 2**30:.1f} GiB" if outcome.limit_bytes else ""
    return (
        f"It ran out of the memory limit{limit}. Avoid tensors larger than (B, H, T, T), such as one outer product "
        "for every position kept at once."
    )

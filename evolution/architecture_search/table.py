"""The rows of a search's report, from outcomes and the DSL alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frameworks.architecture.schema import Architecture
    from training.architecture_spec import StretchSpec
    from training.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one architecture came to at its furthest stretch. None is not measured, never zero.

    Attributes:
        name: of the architecture.
        identity: of the architecture.
        status: tag of the outcome.
        steps: trained.
        tokens: trained on.
        loss: held-out, latents from the prior, nats a token.
        elbo: negative ELBO on held-out text; None without latents.
        ece: expected calibration error on held-out text.
        accuracy: on held-out text.
        qpc: quality per compute: (first training loss - held-out loss) / training FLOPs.
        flops: of training.
        forward_flops: of one forward pass over one sequence, as the model is used.
        parameters: embedding included.
        kv_bytes: cache after one sequence.
        state_bytes: other states while decoding.
        tokens_per_second: training, this machine.
        routers: router to its choices' shares and the entropy in nats.
        fallback: why an accelerator was not used.
    """

    name: str
    identity: str
    status: str
    steps: int
    tokens: int
    forward_flops: int
    parameters: int
    kv_bytes: int
    state_bytes: int
    loss: float | None = None
    elbo: float | None = None
    ece: float | None = None
    accuracy: float | None = None
    qpc: float | None = None
    flops: int | None = None
    tokens_per_second: float | None = None
    routers: dict[str, list[float]] = field(default_factory=dict)
    fallback: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def row_of(architecture: Architecture, spec: StretchSpec, outcome: Outcome) -> Row:
    """The row of one outcome."""
    from frameworks.architecture.document import identity
    from models.pipeline.architecture_cost import architecture_cost
    from training.architecture_trainer import Trained

    cost = architecture_cost(architecture.arch, vocab_size=spec.vocab_size, batch=1, length=spec.seq_len)
    measured: dict[str, Any] = {}
    if isinstance(outcome, Trained):
        measured = {
            "loss": outcome.val_loss,
            "elbo": outcome.elbo,
            "ece": outcome.ece,
            "accuracy": outcome.accuracy,
            "qpc": (outcome.first_loss - outcome.val_loss) / outcome.flops,
            "flops": outcome.flops,
            "tokens_per_second": outcome.tokens / outcome.seconds if outcome.seconds else None,
            "routers": outcome.routers,
            "fallback": outcome.fallback,
        }
    return Row(
        name=architecture.name,
        identity=identity(architecture),
        status=outcome.status,
        steps=spec.stop_at,
        tokens=spec.stop_at * spec.batch_size * spec.seq_len,
        forward_flops=cost.flops,
        parameters=cost.parameters,
        kv_bytes=cost.kv_bytes,
        state_bytes=cost.state_bytes,
        **measured,
    )


def objectives(row: Row) -> tuple[float, float, float, float]:
    """What the Pareto promotion minimises: loss, forward FLOPs, parameters, bytes held while decoding.

    Latency is left out: it differs between machines and runs, and a search must not.
    """
    loss = float("inf") if row.loss is None else row.loss
    return loss, float(row.forward_flops), float(row.parameters), float(row.kv_bytes + row.state_bytes)

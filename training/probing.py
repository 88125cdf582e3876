"""Train a small model on one probe and tell how often it answers rightly: a cheap first measurement, or a diagnosis.

The model is the fixed language model at a small size with the candidate's attention; the optimiser, its schedule and
the loss are those of every run. Compression reads its answer from the last position alone: its features plus a
position, through a small decoder, which is how the task keeps attention from simply looking back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from data.keyed_random import seed_of
from data.probes import IGNORED, Probe, probe
from training.run_spec import RunSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from models.language_model import LanguageModel

_EVALUATION_BATCHES = 8


class ProbeSettings(BaseModel):
    """How a probe is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    d_model: int = Field(48, ge=1)
    n_layers: int = Field(2, ge=1)
    n_heads: int = Field(3, ge=1)
    steps: int = Field(400, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(6e-3, gt=0)
    seed: int = Field(1, ge=0, lt=10_000)


class ProbeResult(BaseModel):
    """What a probe came to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    probe: str
    accuracy: float
    """Share of asked positions answered rightly, on batches never trained on."""
    chance: float
    loss: float
    """Mean training loss of the last tenth of the steps, nats an asked position."""
    steps: int
    cpu_seconds: float


def measure(arguments: dict[str, Any]) -> dict[str, Any]:
    """Run one probe in a sandboxed worker; returns a `ProbeResult` as JSON.

    Args:
        arguments: `probe`, `framework`, `source` (a program, or None for the framework's own class) and `settings`.
    """
    import torch

    from models.language_model import attention_class

    torch.set_num_threads(1)
    source = arguments.get("source")
    attention = attention_class(arguments["framework"], "standard" if source is None else "evolved", source)
    settings = ProbeSettings.model_validate(arguments["settings"])
    return run_probe(probe(arguments["probe"]), attention, settings).model_dump(mode="json")


def run_probe(task: Probe, attention: type[nn.Module], settings: ProbeSettings) -> ProbeResult:
    """Train on `task` and measure its accuracy; the same arguments give the same result to the last bit.

    Raises:
        ValueError: sizes that do not fit, or a loss that is not finite.
    """
    import math
    import time

    import torch

    from models.language_model import LanguageModel
    from training.learning_rate import learning_rate
    from training.optimizer import FlatAdamW

    spec = _spec(task, settings)
    began = time.process_time()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of("probe", settings.seed))
        model = LanguageModel(
            attention,
            vocab_size=task.vocab_size,
            d_model=settings.d_model,
            n_layers=settings.n_layers,
            n_heads=settings.n_heads,
            seed=settings.seed,
        )
        decoder = _decoder(settings.d_model) if task.compresses else None
        parameters = [*model.parameters(), *(decoder.parameters() if decoder is not None else ())]
        optimizer = FlatAdamW(parameters, spec)
        losses = []
        for step in range(settings.steps):
            x, y = task.batch(batch_size=settings.batch_size, seed=settings.seed, step=step)
            optimizer.zero_grad()
            loss = _loss(_features(model, decoder, x), model, y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step(learning_rate(spec, step))
            losses.append(loss.detach())
        tail = float(torch.stack(losses[-max(1, settings.steps // 10) :]).mean())
        if not math.isfinite(tail):
            raise ValueError(f"probe {task.name}: the training loss is {tail}")
        accuracy = _accuracy(task, model, decoder, settings)
    return ProbeResult(
        probe=task.name,
        accuracy=accuracy,
        chance=task.chance,
        loss=tail,
        steps=settings.steps,
        cpu_seconds=time.process_time() - began,
    )


def _features(model: LanguageModel, decoder: nn.Module | None, x: Tensor) -> Tensor:
    """Features (B, T, C), or (B, T - 1, C) made from the last position's alone."""
    hidden = model.hidden(x)
    if decoder is None:
        return hidden
    length = x.shape[1] - 1
    # Positions are small beside features in the model; the decoder must tell them apart.
    places = model.positions[:length] * 10.0
    decoded: Tensor = decoder(hidden[:, -1:, :] + places)
    return decoded


def _loss(features: Tensor, model: LanguageModel, y: Tensor) -> Tensor:
    from training.fused_loss import fused_linear_cross_entropy

    return fused_linear_cross_entropy(features, model.embedding.weight, y, ignore_index=IGNORED)


def _decoder(d_model: int) -> nn.Module:
    from torch import nn

    return nn.Sequential(nn.Linear(d_model, 4 * d_model), nn.GELU(), nn.Linear(4 * d_model, d_model))


def _accuracy(task: Probe, model: LanguageModel, decoder: nn.Module | None, settings: ProbeSettings) -> float:
    import torch

    model.eval()
    right = asked = 0
    with torch.inference_mode():
        for batch in range(1, _EVALUATION_BATCHES + 1):
            x, y = task.batch(batch_size=settings.batch_size, seed=settings.seed, step=-batch)
            answers = (_features(model, decoder, x) @ model.embedding.weight.T).argmax(-1)
            counted = y != IGNORED
            right += int((answers == y)[counted].sum())
            asked += int(counted.sum())
    return right / asked


def _spec(task: Probe, settings: ProbeSettings) -> RunSpec:
    """The optimiser's settings, in the form every run has."""
    return RunSpec(
        candidate="probe",
        framework="probe",
        size=f"d{settings.d_model}",
        d_model=settings.d_model,
        n_layers=settings.n_layers,
        n_heads=settings.n_heads,
        vocab_size=task.vocab_size,
        seq_len=task.seq_len,
        batch_size=settings.batch_size,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        purpose="search",
        eval_split="search_validation",
        eval_every=settings.steps,
        eval_tokens=task.seq_len,
        corpus_hash=f"probe {task.name}",
        tokenizer_hash=f"probe {task.name}",
    )

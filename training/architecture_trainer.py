"""Trains an architecture for one stretch, continuing from its checkpoint, and evaluates it on held-out text.

Every random number is drawn by key (weights by name, batches and latents by step), so a run that is continued, killed
or started again gives the same losses to the last bit. Latents come from the posterior in training and from the prior
in evaluation: a loss measured with a posterior, which has seen the future, ranks nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from data.batches import evaluation_windows, training_batch
from data.corpus import Corpus, open_corpus
from frameworks.architecture.document import architecture_from
from frameworks.architecture.schema import Architecture
from models.pipeline.architecture_cost import architecture_cost
from models.pipeline.model import PipelineModel
from training.architecture_spec import StretchSpec
from training.checkpoint import CheckpointError, CheckpointStore
from training.learning_rate import learning_rate
from training.optimizer import FlatAdamW
from training.outcome import Completed, Diverged, Finite, Outcome, outcome_from_json
from training.worker import outcome_of_error

_ECE_BINS = 15
_CHECK_EVERY = 20
_ARGUMENTS = ("spec", "architecture", "corpus_dir", "checkpoint_dir")


class Trained(Completed):
    """A stretch that was trained. `val_loss` is with latents from the prior."""

    first_loss: Finite
    """Cross-entropy of the first training step, nats a token."""
    accuracy: Finite = Field(ge=0, le=1)
    ece: Finite = Field(ge=0, le=1)
    """Expected calibration error of the most likely token on held-out text, 15 bins."""
    kl: Finite | None = None
    """Nats a token that the posterior holds on held-out text; None without latents. Cross-entropy under the posterior
    plus it is the negative ELBO."""
    elbo: Finite | None = None
    """Cross-entropy under the posterior plus its KL on held-out text: a bound on the loss; None without latents."""
    routers: dict[str, list[Finite]] = Field(default_factory=dict)
    """Router to the share of tokens of each choice, then the entropy in nats."""
    fallback: str | None = None
    """Why the run was done on the CPU instead of the accelerator."""


def measure(arguments: dict[str, Any]) -> dict[str, Any]:
    """Train one stretch in a worker and return its outcome as JSON.

    Args:
        arguments: `spec` (a StretchSpec as JSON), `architecture` (its tree), `corpus_dir`, `checkpoint_dir`.

    Raises:
        ValueError: unknown or missing arguments, or a spec or corpus that does not fit.
        OSError: the corpus or the checkpoint cannot be read or written.
    """
    if set(arguments) != set(_ARGUMENTS):
        raise ValueError(f"measure: got {', '.join(sorted(arguments))}; expected {', '.join(_ARGUMENTS)}")
    spec = StretchSpec.model_validate(arguments["spec"])
    architecture = architecture_from(arguments["architecture"])
    corpus = open_corpus(Path(arguments["corpus_dir"]))
    _check_corpus(spec, corpus)
    torch.set_num_threads(1)
    try:
        outcome = train_stretch(spec, architecture, corpus, Path(arguments["checkpoint_dir"]))
    except (CheckpointError, OSError):
        raise
    except (RuntimeError, MemoryError, ValueError) as error:
        return outcome_of_error(error).model_dump(mode="json")
    return outcome.model_dump(mode="json")


def trained_from_json(value: dict[str, Any]) -> Outcome:
    """The outcome that `measure` returned: `Trained`, or one of the failures.

    Raises:
        pydantic.ValidationError: not an outcome.
    """
    return Trained.model_validate(value) if value.get("status") == "completed" else outcome_from_json(value)


def train_stretch(
    spec: StretchSpec,
    architecture: Architecture,
    corpus: Corpus,
    checkpoint_dir: Path,
    progress: Callable[[int, float], None] | None = None,
) -> Outcome:
    """Train up to `spec.stop_at` from the newest checkpoint, save, and evaluate.

    An accelerator that fails is given up once: the stretch is done on the CPU, from the same checkpoint, and the
    outcome says so.

    Args:
        spec: the stretch.
        architecture: what is trained; its identity is `spec.candidate`.
        corpus: the corpus whose hashes the spec holds.
        checkpoint_dir: of this trajectory.
        progress: called with (step, loss) every 20 steps.

    Returns:
        Trained or Diverged.

    Raises:
        CheckpointError: the folder holds another trajectory.
        ValueError: another corpus than the spec's.
        RuntimeError: torch failed on the CPU.
    """
    _check_corpus(spec, corpus)
    run = _Stretch(spec, architecture, corpus, checkpoint_dir, progress)
    if spec.device_kind == "cpu":
        return run.train(torch.device("cpu"))
    try:
        return run.train(torch.device(spec.device_kind))
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA raises the latter
        outcome = run.train(torch.device("cpu"))
        reason = f"{spec.device_kind} failed ({' '.join(str(error).split())[:200]}); trained on the CPU"
        return outcome.model_copy(update={"fallback": reason}) if isinstance(outcome, Trained) else outcome


def _check_corpus(spec: StretchSpec, corpus: Corpus) -> None:
    if (spec.corpus_hash, spec.tokenizer_hash) != (corpus.hash, corpus.tokenizer_hash):
        raise ValueError(
            f"the spec's corpus is {spec.corpus_hash[:12]} and {corpus.name!r} is {corpus.hash[:12]}; "
            "runs on different corpora are never compared"
        )


class _Stretch:
    """One stretch on one device."""

    def __init__(
        self,
        spec: StretchSpec,
        architecture: Architecture,
        corpus: Corpus,
        checkpoint_dir: Path,
        progress: Callable[[int, float], None] | None,
    ) -> None:
        self.spec, self.architecture, self.corpus = spec, architecture, corpus
        self.store = CheckpointStore(checkpoint_dir)
        self.progress = progress

    def train(self, device: torch.device) -> Outcome:
        """From the checkpoint to the stop."""
        spec = self.spec
        wall, cpu = time.perf_counter(), time.process_time()
        model = PipelineModel(self.architecture.arch, vocab_size=spec.vocab_size, seed=spec.seed).to(device)
        optimizer = FlatAdamW(model.parameters(), spec)
        step, losses, seconds, cpu_seconds = self._resume(model, optimizer)
        tokens = self.corpus.tokens("train")
        pending: list[Tensor] = []
        began = step
        while step < spec.stop_at:
            x, y = training_batch(tokens, seq_len=spec.seq_len, batch_size=spec.batch_size, seed=spec.seed, step=step)
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=spec.precision == "bf16"):
                loss, cross_entropy = model.loss(x.to(device), y.to(device), sample=step)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step(learning_rate(spec, step))
            pending.append(cross_entropy.detach())
            step += 1
            if step % _CHECK_EVERY == 0 or step == spec.stop_at:
                losses += torch.stack(pending).tolist()
                pending.clear()
                if not all(math.isfinite(value) for value in losses[-_CHECK_EVERY:]):
                    return Diverged(step=step, reason=f"the training loss is {losses[-1]}")
                if self.progress is not None:
                    self.progress(step, losses[-1])
        seconds += time.perf_counter() - wall
        cpu_seconds += time.process_time() - cpu
        if step > began:
            self._save(step, model, optimizer, losses, seconds, cpu_seconds)
        return self._evaluated(model, losses, seconds, cpu_seconds, device)

    def _resume(self, model: PipelineModel, optimizer: FlatAdamW) -> tuple[int, list[float], float, float]:
        payload = self.store.load_newest()
        if payload is None:
            return 0, [], 0.0, 0.0
        if payload["trajectory"] != self.spec.trajectory or payload["step"] > self.spec.stop_at:
            raise CheckpointError(
                f"{self.store.directory} holds step {payload['step']} of trajectory {payload['trajectory'][:12]}; "
                f"wanted at most step {self.spec.stop_at} of {self.spec.trajectory[:12]}"
            )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(payload["model"][name])
        optimizer.load_state(payload["optimizer"])
        return payload["step"], payload["losses"].tolist(), payload["seconds"], payload["cpu_seconds"]

    def _save(
        self,
        step: int,
        model: PipelineModel,
        optimizer: FlatAdamW,
        losses: list[float],
        seconds: float,
        cpu_seconds: float,
    ) -> None:
        payload = {
            "trajectory": self.spec.trajectory,
            "step": step,
            "losses": torch.tensor(losses, dtype=torch.float64),
            "model": {name: parameter.detach().clone() for name, parameter in model.named_parameters()},
            "optimizer": optimizer.state(),
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
        }
        self.store.save(step, payload)

    def _evaluated(
        self, model: PipelineModel, losses: list[float], seconds: float, cpu_seconds: float, device: torch.device
    ) -> Outcome:
        spec = self.spec
        held_out = evaluation_windows(
            self.corpus.tokens(spec.eval_split), seq_len=spec.seq_len, max_tokens=spec.eval_tokens
        )
        x, y = (tensor.to(device) for tensor in held_out)
        found = evaluate_architecture(model, x, y, batch_size=max(1, 4 * spec.batch_size))
        if not math.isfinite(found["val_loss"]):
            return Diverged(step=spec.stop_at, reason=f"the validation loss is {found['val_loss']}")
        cost = architecture_cost(
            self.architecture.arch,
            vocab_size=spec.vocab_size,
            batch=spec.batch_size,
            length=spec.seq_len,
            posterior=True,
        )
        return Trained(
            curve=[(spec.stop_at, losses[-1], found["val_loss"])],
            n_parameters=cost.parameters,
            tokens=spec.stop_at * spec.batch_size * spec.seq_len,
            flops=3 * cost.flops * spec.stop_at,
            cpu_seconds=cpu_seconds,
            seconds=seconds,
            peak_memory_bytes=0 if device.type == "cpu" else torch.cuda.max_memory_allocated(device),
            first_loss=losses[0],
            **found,
        )


@torch.no_grad()
def evaluate_architecture(model: PipelineModel, x: Tensor, y: Tensor, *, batch_size: int) -> dict[str, Any]:
    """Held-out loss, accuracy, calibration and routing of `model`, latents from the prior.

    Args:
        model: the model.
        x: tokens (N, T).
        y: their targets (N, T).
        batch_size: windows at once.

    Returns:
        The fields of `Trained` that an evaluation decides.
    """
    total, hits, kl, elbo = 0.0, 0.0, 0.0, 0.0
    confidence_of, correct_of = [], []
    routers: dict[str, list[float]] = {}
    for start in range(0, x.shape[0], batch_size):
        tokens, targets = x[start : start + batch_size], y[start : start + batch_size]
        done = model.run(tokens, sample=start)
        logits = model.logits(done.hidden).double()
        total += float(F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"))
        confidence, guess = logits.softmax(-1).max(-1)
        confidence_of.append(confidence.flatten())
        correct_of.append((guess == targets).flatten().double())
        hits += float((guess == targets).sum())
        for routing in done.routing:
            routers.setdefault(routing.place, [*routing.usage.tolist(), float(routing.entropy)])
        if model.has_latents:
            inferred = model.run(tokens, posterior=True, sample=start)
            share = tokens.numel() / x.numel()
            loss = F.cross_entropy(model.logits(inferred.hidden).flatten(0, 1), targets.flatten())
            held = 0.0 if inferred.kl is None else float(inferred.kl)
            kl += share * held
            elbo += share * (float(loss) + held)
    error = calibration_error(torch.cat(confidence_of), torch.cat(correct_of))
    latent = {"kl": kl, "elbo": elbo} if model.has_latents else {}
    return {"val_loss": total / y.numel(), "accuracy": hits / y.numel(), "ece": error, "routers": routers, **latent}


def calibration_error(confidence: Tensor, correct: Tensor) -> float:
    """Expected calibration error (Guo et al. 2017) of N guesses: confidence (N,) in [0, 1], correct (N,) 0 or 1."""
    bins = (confidence * _ECE_BINS).long().clamp(max=_ECE_BINS - 1)
    gap = torch.zeros(_ECE_BINS, dtype=confidence.dtype, device=confidence.device)
    gap.index_add_(0, bins, confidence - correct)
    return float(gap.abs().sum() / confidence.numel())

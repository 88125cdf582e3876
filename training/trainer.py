"""Train one run to its outcome: a pure function of (RunSpec, corpus, attention class, machine).

Choices: the batch of a step is computed from (seed, step), every random number a candidate may
draw comes from a forked generator seeded by the spec, and a checkpoint holds all state, so a
loss curve is the same to the last bit however often the run is interrupted and whatever else the
process did. Losses stay on the device and are read every 20 steps, which is also how soon a
divergence is seen. The step itself is `LanguageModel.hidden` (compiled where the spec says so), the fused loss
and `FlatAdamW`.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from data.batches import evaluation_windows, training_batch
from data.corpus import Corpus
from data.keyed_random import seed_of
from models.language_model import LanguageModel
from training.checkpoint import CheckpointError, CheckpointStore
from training.evaluation import evaluate
from training.flops import measured_flops
from training.fused_loss import fused_linear_cross_entropy
from training.learning_rate import learning_rate
from training.optimizer import FlatAdamW
from training.outcome import Completed, Diverged, Outcome
from training.run_files import write_history
from training.run_spec import RunSpec

CHECK_EVERY = 20
"""Steps between two looks at the losses."""


class Interrupted(Exception):  # noqa: N818  (a request that was met, not an error)
    """The run was asked to stop and did, after `step` steps; its checkpoint is written."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.step = step


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands; given to the progress callback at every look at the losses."""

    step: int
    steps: int
    loss: float
    """Mean training loss since the last report, nats a token."""
    learning_rate: float
    val_loss: float | None
    """The newest evaluation."""
    tokens_per_second: float


class Trainer:
    """One run of one candidate.

    Args:
        spec: the run.
        corpus: the corpus whose hashes the spec holds.
        attention_class: attention layer built into the model.
        checkpoint_dir: where checkpoints and `history.json` go; None writes nothing.
        progress: called every 20 steps.
        should_stop: asked after every step; True ends the run with `Interrupted`, after a checkpoint.
        checkpoint_every: steps between checkpoints; None takes the spec's `eval_every`.
        keep_checkpoints: how many of the newest stay; None keeps all.

    Raises:
        ValueError: the corpus is not the spec's, or its device is not there.
    """

    def __init__(
        self,
        spec: RunSpec,
        corpus: Corpus,
        attention_class: type[nn.Module],
        *,
        checkpoint_dir: Path | str | None = None,
        progress: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        checkpoint_every: int | None = None,
        keep_checkpoints: int | None = 2,
    ) -> None:
        _check_corpus(spec, corpus)
        if checkpoint_every is not None and checkpoint_every < 1:
            raise ValueError(f"checkpoint_every={checkpoint_every}: must be at least 1")
        if spec.device_kind == "cuda" and not torch.cuda.is_available():
            raise ValueError("the spec's device_kind is 'cuda' and no CUDA device is available; use 'cpu'")
        if spec.execution == "stacked":
            raise ValueError("the spec's execution is 'stacked'; give it to training.stacked.train_stacked")
        self.spec = spec
        self.device = torch.device(spec.device_kind)
        self.step = 0
        self.losses: list[float] = []
        """Training loss of every step so far, as last read."""
        self.curve: list[tuple[int, float, float]] = []
        self._attention_class = attention_class
        self._train_tokens = corpus.tokens("train")
        x, y = evaluation_windows(corpus.tokens(spec.eval_split), seq_len=spec.seq_len, max_tokens=spec.eval_tokens)
        self._eval_x, self._eval_y = x.to(self.device), y.to(self.device)
        self._store = None if checkpoint_dir is None else CheckpointStore(checkpoint_dir, keep=keep_checkpoints)
        self._checkpoint_every = checkpoint_every or spec.eval_every
        self._progress = progress
        self._should_stop = should_stop
        self._pending: list[Tensor] = []
        self._seconds = 0.0
        self._cpu_seconds = 0.0

    def run(self) -> Outcome:
        """Train to the horizon, from the newest whole checkpoint if there is one.

        Returns:
            Completed or Diverged. Whatever the candidate raises passes through.

        Raises:
            Interrupted: `should_stop` said so.
            CheckpointError: the directory holds another run.
            OSError: a checkpoint could not be written.
        """
        with _own_randomness(self.spec, self.device):
            self._start_clocks()
            self._build()
            self._resume()
            self._began_at = self.step
            diverged = self._train()
            outcome: Outcome = diverged if diverged is not None else self._completed()
        self._write_history(outcome)
        return outcome

    def _build(self) -> None:
        spec = self.spec
        model = LanguageModel(
            self._attention_class,
            vocab_size=spec.vocab_size,
            d_model=spec.d_model,
            n_layers=spec.n_layers,
            n_heads=spec.n_heads,
            seed=spec.seed,
        )
        self.model = model.to(self.device)
        self.model.train()
        self._optimizer = FlatAdamW(self.model.parameters(), spec)
        self._hidden: Callable[[Tensor], Tensor] = self.model.hidden
        if spec.execution == "compiled":
            from training.compilation import compiled_hidden

            self._hidden = compiled_hidden(self.model, self.device)

    def _train(self) -> Diverged | None:
        spec = self.spec
        while self.step < spec.steps:
            self._pending.append(self._train_step())
            self.step += 1
            evaluation_due = self.step % spec.eval_every == 0 or self.step == spec.steps
            checkpoint_due = self._store is not None and (
                self.step % self._checkpoint_every == 0 or self.step == spec.steps
            )
            stop = self._should_stop is not None and self._should_stop()
            if not (evaluation_due or checkpoint_due or stop or self.step % CHECK_EVERY == 0):
                continue
            diverged = self._read_losses() or (self._evaluate() if evaluation_due else None)
            if diverged is not None:
                return diverged
            self._report()
            if checkpoint_due or stop:
                self._save()
            if stop and self.step < spec.steps:
                raise Interrupted(self.step)
        return None

    def _train_step(self) -> Tensor:
        """One step of AdamW; the loss stays on the device."""
        spec = self.spec
        x, y = training_batch(
            self._train_tokens, seq_len=spec.seq_len, batch_size=spec.batch_size, seed=spec.seed, step=self.step
        )
        if self.device.type == "cuda":
            x = x.pin_memory().to(self.device, non_blocking=True)
            y = y.pin_memory().to(self.device, non_blocking=True)
        self._optimizer.zero_grad()
        if spec.precision == "bf16":
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                loss = self._loss(x, y)
        else:
            loss = self._loss(x, y)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step(learning_rate(spec, self.step))
        return loss.detach()

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        return fused_linear_cross_entropy(self._hidden(x), self.model.embedding.weight, y, ignore_index=None)

    def _read_losses(self) -> Diverged | None:
        """Move the pending losses to the host and look at them."""
        if not self._pending:
            return None
        values = torch.stack(self._pending).tolist()
        self._pending.clear()
        first = len(self.losses)
        self.losses.extend(values)
        for index, value in enumerate(values, start=first):
            diverged = divergence(self.spec, value, index, "training")
            if diverged is not None:
                return diverged
        return None

    def _evaluate(self) -> Diverged | None:
        since = self.curve[-1][0] if self.curve else 0
        train_loss = math.fsum(self.losses[since:]) / (self.step - since)
        # Inference holds few tensors, so more windows fit at once than in training.
        val_loss = evaluate(self.model, self._eval_x, self._eval_y, batch_size=4 * self.spec.batch_size)
        diverged = divergence(self.spec, val_loss, self.step, "validation")
        if diverged is None:
            self.curve.append((self.step, train_loss, val_loss))
            self._write_history(None)
        return diverged

    def _completed(self) -> Completed:
        spec = self.spec
        seconds, cpu_seconds = self._clocks()
        x, y = training_batch(
            self._train_tokens, seq_len=spec.seq_len, batch_size=spec.batch_size, seed=spec.seed, step=0
        )
        flops = measured_flops(self.model, x.to(self.device), y.to(self.device)) * spec.steps
        return Completed(
            val_loss=self.curve[-1][2],
            curve=self.curve,
            n_parameters=self.model.n_parameters(),
            tokens=spec.tokens,
            flops=flops,
            cpu_seconds=cpu_seconds,
            seconds=seconds,
            peak_memory_bytes=peak_memory(self.device),
        )

    def _save(self) -> None:
        if self._store is None:
            return
        seconds, cpu_seconds = self._clocks()
        payload = {
            "spec": self.spec.canonical_json(),
            "step": self.step,
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "curve": self.curve,
            "model": {name: tensor.detach() for name, tensor in _tensors(self.model)},
            "optimizer": self._optimizer.state(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
        }
        self._store.save(self.step, payload)

    def _resume(self) -> None:
        payload = self._store.load_newest() if self._store is not None else None
        if payload is None:
            return
        found = RunSpec.model_validate_json(payload["spec"])
        if found.key != self.spec.key:
            rows = [
                f"{name} {theirs!r} (now {mine!r})" for name, (mine, theirs) in self.spec.differences(found).items()
            ]
            raise CheckpointError(
                f"{self._store.directory if self._store else ''} holds the checkpoint of another run, with "
                f"{', '.join(rows)}; use another directory or the same settings"
            )
        here = dict(_tensors(self.model))
        if set(here) != set(payload["model"]):
            odd = sorted(set(here) ^ set(payload["model"]))
            raise CheckpointError(f"the checkpoint and the model differ in the tensors {', '.join(odd)}")
        with torch.no_grad():
            for name, tensor in here.items():
                tensor.copy_(payload["model"][name])
        self._optimizer.load_state(payload["optimizer"])
        torch.set_rng_state(payload["rng"])
        if payload["cuda_rng"] is not None:
            torch.cuda.set_rng_state(payload["cuda_rng"])
        self.step = payload["step"]
        self.losses = payload["losses"].tolist()
        self.curve = [(int(step), train, val) for step, train, val in payload["curve"]]
        self._seconds, self._cpu_seconds = payload["seconds"], payload["cpu_seconds"]

    def _report(self) -> None:
        if self._progress is None:
            return
        recent = self.losses[-CHECK_EVERY:]
        seconds = max(1e-9, time.perf_counter() - self._began)
        self._progress(
            Progress(
                step=self.step,
                steps=self.spec.steps,
                loss=math.fsum(recent) / len(recent),
                learning_rate=learning_rate(self.spec, self.step - 1),
                val_loss=self.curve[-1][2] if self.curve else None,
                tokens_per_second=(self.step - self._began_at) * self.spec.batch_size * self.spec.seq_len / seconds,
            )
        )

    def _write_history(self, outcome: Outcome | None) -> None:
        if self._store is None:
            return
        write_history(self._store.directory, self.spec, outcome, step=self.step, curve=self.curve)

    def _start_clocks(self) -> None:
        self._began = time.perf_counter()
        self._began_cpu = time.process_time()

    def _clocks(self) -> tuple[float, float]:
        """Wall and CPU seconds of this run, earlier parts of it included."""
        return (
            self._seconds + time.perf_counter() - self._began,
            self._cpu_seconds + time.process_time() - self._began_cpu,
        )


def divergence(spec: RunSpec, loss: float, step: int, kind: str) -> Diverged | None:
    """What gives a run away: a `kind` loss (nats a token) that is not finite, or above 2 ln V after warm-up."""
    limit = 2.0 * math.log(spec.vocab_size)
    if not math.isfinite(loss):
        return Diverged(step=step, reason=f"the {kind} loss is {loss}")
    if step >= spec.warmup_steps and loss > limit:
        reason = f"the {kind} loss is {loss:.2f} after warm-up, above 2 ln V = {limit:.2f}"
        return Diverged(step=step, reason=reason)
    return None


def _check_corpus(spec: RunSpec, corpus: Corpus) -> None:
    for name, expected, found in (
        ("corpus_hash", spec.corpus_hash, corpus.hash),
        ("tokenizer_hash", spec.tokenizer_hash, corpus.tokenizer_hash),
        ("vocab_size", spec.vocab_size, corpus.vocab_size),
    ):
        if expected != found:
            raise ValueError(
                f"the spec's {name} is {expected} and the corpus {corpus.name!r} has {found}; "
                "runs on different corpora are never compared"
            )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and every buffer, persistent or not, that a candidate may move."""
    yield from model.named_parameters()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name != "positions")


@contextmanager
def _own_randomness(spec: RunSpec, device: torch.device) -> Iterator[None]:
    """Give the run a random state of its own and put the caller's back; deterministic kernels on a GPU."""
    seed = seed_of("run", spec.seed)
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if cuda else []), torch.enable_grad():
        torch.default_generator.manual_seed(seed)
        if not cuda:
            yield
            return
        torch.cuda.manual_seed(seed)
        before = torch.are_deterministic_algorithms_enabled()
        warned = torch.is_deterministic_algorithms_warn_only_enabled()
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warned)


def peak_memory(device: torch.device) -> int:
    """Bytes: the process's largest resident memory on a CPU, the largest allocated memory on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

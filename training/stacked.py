"""Several seeds of one run at once: their weights stacked, one vectorised step for all (`torch.func`).

On a GPU a small model leaves most of the card idle, and stacked seeds fill it; on these CPUs it does not pay (0.7 to
0.9 of the speed of one after the other), so it is a choice and never a default. The sums are ordered otherwise than
in a run alone, so losses agree to rounding and not to the last bit: a stacked run has another key (`execution`). A
candidate whose operations cannot be vectorised is trained one seed after the other instead, under the usual keys, and
the reason is told.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from data.batches import evaluation_windows, training_batch
from data.corpus import Corpus
from models.language_model import LanguageModel
from training.evaluation import evaluate
from training.flops import measured_flops
from training.learning_rate import learning_rate
from training.outcome import Completed, Diverged, Outcome
from training.run_spec import RunSpec
from training.trainer import CHECK_EVERY, Trainer, divergence, peak_memory

Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class StackedResult:
    """What stacked training came to.

    Attributes:
        specs: what was run, in the order asked for; `execution` is `eager` where they were not stacked after all.
        outcomes: one a spec.
        fell_back: why they were not stacked; None where they were.
    """

    specs: tuple[RunSpec, ...]
    outcomes: tuple[Outcome, ...]
    fell_back: str | None


def train_stacked(specs: Sequence[RunSpec], corpus: Corpus, attention_class: type[nn.Module]) -> StackedResult:
    """Train runs that differ in nothing but their seed, all at once.

    Args:
        specs: with `execution` "stacked".
        corpus: the specs' corpus.
        attention_class: attention layer built into the model.

    Raises:
        ValueError: no spec, specs that differ in more than their seed, or another `execution`.
    """
    _check(specs)
    try:
        return StackedResult(
            specs=tuple(specs), outcomes=tuple(_Stack(specs, corpus, attention_class).run()), fell_back=None
        )
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else 'no message'}"
    alone = tuple(spec.model_copy(update={"execution": "eager"}) for spec in specs)
    return StackedResult(
        specs=alone,
        outcomes=tuple(Trainer(spec, corpus, attention_class).run() for spec in alone),
        fell_back=reason,
    )


def _check(specs: Sequence[RunSpec]) -> None:
    if not specs:
        raise ValueError("stacked training needs at least one spec")
    for spec in specs:
        if spec.execution != "stacked":
            raise ValueError(f"a spec has execution {spec.execution!r}; stacked training takes 'stacked'")
        differing = set(specs[0].differences(spec)) - {"seed"}
        if differing:
            raise ValueError(
                f"stacked runs may differ in their seed only; these differ in {', '.join(sorted(differing))}"
            )


class _Stack:
    def __init__(self, specs: Sequence[RunSpec], corpus: Corpus, attention_class: type[nn.Module]) -> None:
        self.specs = list(specs)
        self.spec = spec = specs[0]
        self.device = torch.device(spec.device_kind)
        self._corpus = corpus
        self._began, self._began_cpu = time.perf_counter(), time.process_time()
        self._models = [
            LanguageModel(
                attention_class,
                vocab_size=spec.vocab_size,
                d_model=spec.d_model,
                n_layers=spec.n_layers,
                n_heads=spec.n_heads,
                seed=each.seed,
            ).to(self.device)
            for each in specs
        ]
        self._base = self._models[0]
        moved = [name for name, _ in self._base.named_buffers() if name != "positions"]
        if moved:
            raise NotImplementedError(f"it keeps state in buffers ({', '.join(moved)}), which seeds cannot share")
        self._parameters: Tensors = {
            name: torch.stack([dict(model.named_parameters())[name].detach() for model in self._models])
            for name, _ in self._base.named_parameters()
        }
        self._optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self._parameters.values() if p.ndim > 2], "weight_decay": spec.weight_decay},
                {"params": [p for p in self._parameters.values() if p.ndim <= 2], "weight_decay": 0.0},
            ],
            lr=spec.learning_rate,
            betas=(spec.beta1, spec.beta2),
            eps=1e-8,
        )
        self._losses: list[list[float]] = [[] for _ in specs]
        self._curves: list[list[tuple[int, float, float]]] = [[] for _ in specs]
        self._diverged: dict[int, Diverged] = {}

    def run(self) -> list[Outcome]:
        """Train to the horizon."""
        spec = self.spec
        gradients = _gradients(self._base)
        tokens = self._corpus.tokens("train")
        x, y = evaluation_windows(
            self._corpus.tokens(spec.eval_split), seq_len=spec.seq_len, max_tokens=spec.eval_tokens
        )
        held_out = x.to(self.device), y.to(self.device)
        pending: list[Tensor] = []
        for step in range(spec.steps):
            batches = [
                training_batch(tokens, seq_len=spec.seq_len, batch_size=spec.batch_size, seed=each.seed, step=step)
                for each in self.specs
            ]
            xs, ys = (torch.stack(part).to(self.device) for part in zip(*batches, strict=True))  # (K, B, T)
            pending.append(self._update(gradients, xs, ys, step))
            due = (step + 1) % spec.eval_every == 0 or step + 1 == spec.steps
            if due or (step + 1) % CHECK_EVERY == 0:
                self._read(pending)
                if len(self._diverged) == len(self.specs):
                    break
            if due:
                self._evaluate(step + 1, *held_out)
        return [self._outcome(index) for index in range(len(self.specs))]

    def _update(self, gradients: Callable[..., Any], xs: Tensor, ys: Tensor, step: int) -> Tensor:
        grads, losses = gradients(self._parameters, xs, ys)
        if self.spec.clip > 0:
            squares = torch.stack([grad.flatten(1).square().sum(1) for grad in grads.values()])
            factor = (self.spec.clip / (squares.sum(0).sqrt() + 1e-6)).clamp(max=1.0)  # (K,)
            grads = {name: grad * factor.view(-1, *[1] * (grad.ndim - 1)) for name, grad in grads.items()}
        for name, parameter in self._parameters.items():
            parameter.grad = grads[name]
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self.spec, step)
        self._optimizer.step()
        found: Tensor = losses.detach()
        return found

    def _read(self, pending: list[Tensor]) -> None:
        rows = torch.stack(pending).tolist()
        pending.clear()
        for row in rows:
            for index, loss in enumerate(row):
                if index in self._diverged:
                    continue
                found = divergence(self.spec, loss, len(self._losses[index]), "training")
                self._losses[index].append(loss)
                if found is not None:
                    self._diverged[index] = found

    def _evaluate(self, step: int, x: Tensor, y: Tensor) -> None:
        for index, model in enumerate(self._models):
            if index in self._diverged:
                continue
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(self._parameters[name][index])
            val_loss = evaluate(model, x, y, batch_size=4 * self.spec.batch_size)
            found = divergence(self.spec, val_loss, step, "validation")
            if found is not None:
                self._diverged[index] = found
                continue
            curve = self._curves[index]
            since = curve[-1][0] if curve else 0
            curve.append((step, math.fsum(self._losses[index][since:]) / (step - since), val_loss))

    def _outcome(self, index: int) -> Outcome:
        if index in self._diverged:
            return self._diverged[index]
        spec, model, share = self.specs[index], self._models[index], len(self.specs)
        x, y = training_batch(
            self._corpus.tokens("train"), seq_len=spec.seq_len, batch_size=spec.batch_size, seed=spec.seed, step=0
        )
        return Completed(
            val_loss=self._curves[index][-1][2],
            curve=self._curves[index],
            n_parameters=model.n_parameters(),
            tokens=spec.tokens,
            flops=measured_flops(model, x.to(self.device), y.to(self.device)) * spec.steps,
            cpu_seconds=(time.process_time() - self._began_cpu) / share,
            seconds=(time.perf_counter() - self._began) / share,
            peak_memory_bytes=peak_memory(self.device),
        )


def _gradients(base: LanguageModel) -> Callable[..., Any]:
    """From stacked parameters, x and y, each with K in front, to stacked gradients and K losses."""
    buffers = dict(base.named_buffers())

    def loss_of(parameters: Tensors, x: Tensor, y: Tensor) -> Tensor:
        logits: Tensor = torch.func.functional_call(base, (parameters, buffers), (x,))
        return F.cross_entropy(logits.flatten(0, -2), y.flatten())

    # A candidate that draws random numbers is refused by vmap and trained alone.
    return torch.func.vmap(torch.func.grad_and_value(loss_of), randomness="error")

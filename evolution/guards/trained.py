"""Guards on trained weights, the last word before a promotion.

Training may have opened a gate that no random weights opened. Checked again, on the trained model itself, in float64
and in float32 as it was trained:
rows do not see each other, later and missing tokens do not move earlier features, and a canary: on tokens
drawn uniformly no causal model can score below ln V, because nothing predicts them, so a loss below that was read
from the future.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from data.keyed_random import torch_generator
from evolution.guards.precision import double_precision
from evolution.guards.prefix import change_suffix
from evolution.guards.report import GuardReport
from evolution.guards.rounding import FLOAT32, FLOAT64, Tolerance, leak_size, noise_floor
from models.language_model import LanguageModel

PREFIX = "trained_prefix"
BATCH = "trained_batch"
CANARY = "trained_canary"
_CANARY_SIGMAS = 5.0


def check_trained(
    model: LanguageModel, *, seq_len: int, batch_size: int = 8, probe_seed: int = 0, canary_tokens: int = 16_384
) -> list[GuardReport]:
    """Reports of the guards on a trained model, in order; stops at the first that fails. The model is not changed.

    Args:
        model: the trained model; it runs a candidate's code, so call this where the candidate may run.
        seq_len: length T it was trained at; lengths around it are probed too.
        batch_size: rows of a probe.
        probe_seed: varies tokens, cuts and lengths.
        canary_tokens: how many uniform tokens the canary scores.

    Raises:
        ValueError: `seq_len` below 2, or `batch_size` or `canary_tokens` below 1.
    """
    if seq_len < 2 or batch_size < 1 or canary_tokens < 1:
        raise ValueError(
            f"seq_len={seq_len}, batch_size={batch_size}, canary_tokens={canary_tokens}: "
            "seq_len must be at least 2, the others at least 1"
        )
    trained = _TrainedProbe(copy.deepcopy(model), seq_len, batch_size, probe_seed, FLOAT32)
    double = _TrainedProbe(copy.deepcopy(model).double(), seq_len, batch_size, probe_seed, FLOAT64)
    checks: tuple[tuple[str, Callable[[], GuardReport], bool], ...] = (
        (BATCH, double.batch, True),
        (PREFIX, double.prefix, True),
        (PREFIX, trained.prefix, False),
        (CANARY, lambda: trained.canary(canary_tokens), False),
    )
    reports: list[GuardReport] = []
    for guard, check, widen in checks:
        started = time.perf_counter()
        with double_precision() if widen else nullcontext():
            report = replace(check(), guard=guard)
        reports.append(replace(report, seconds=time.perf_counter() - started))
        if not report.passed:
            break
    return reports


class _TrainedProbe:
    def __init__(
        self, model: LanguageModel, seq_len: int, batch_size: int, probe_seed: int, tolerance: Tolerance
    ) -> None:
        self.model = model
        self.weights = list(model.parameters())
        self.seq_len = seq_len
        self.batch_size = batch_size
        self.tolerance = tolerance.at_ordinary_weights()
        self.device = model.embedding.weight.device
        self.generator = torch_generator("trained guards", probe_seed)

    def prefix(self) -> GuardReport:
        """Changed and missing suffixes, in both modes, at the trained length, a shorter and a longer one."""
        shorter = 2 + int(torch.randint(0, self.seq_len, (), generator=self.generator))
        longer = self.seq_len + 1 + int(torch.randint(0, self.seq_len, (), generator=self.generator))
        largest = 0.0
        for length in (self.seq_len, shorter, longer):
            tokens, others = self._tokens(length), self._tokens(length)
            cuts = torch.randint(0, length - 1, (self.batch_size,), generator=self.generator).tolist()
            cuts[0] = length - 2
            shared = torch.arange(length) <= torch.tensor(cuts).unsqueeze(-1)  # (B, T)
            mask = shared.unsqueeze(-1).to(self.device)
            changed = change_suffix(tokens, others, cuts)
            for mode in ("train", "eval"):
                run = self._runner(mode)
                base = run(tokens)
                moved = torch.where(mask, (run(changed) - base).abs(), 0.0)
                cut = cuts[-1]
                missing = (run(tokens[:, : cut + 1]) - base[:, : cut + 1]).abs()
                for what, difference, given in (("changing", moved, changed), ("removing", missing, tokens)):
                    leak = self._confirmed(difference, base, run, given)
                    largest = max(largest, float(difference.max()) / float(base.abs().max()))
                    if leak:
                        to = int(difference.amax((0, 2)).argmax())
                        evidence = {
                            "leak": leak,
                            "to_position": to,
                            "length": length,
                            "mode": mode,
                            "probe": what,
                            "precision": str(base.dtype),
                        }
                        return _fail(
                            f"on the trained weights {what} later tokens moves the features at position {to} by "
                            f"{leak:.2g} (relative; length {length}, {mode} mode, {base.dtype}); position t may depend "
                            "on tokens 0..t only",
                            evidence,
                        )
        return _pass("later tokens do not move earlier features", {"largest": largest})

    def batch(self) -> GuardReport:
        """Each row alone gives what it gives among others."""
        tokens = self._tokens(self.seq_len)
        for mode in ("train", "eval"):
            run = self._runner(mode)
            base = run(tokens)
            row = int(torch.randint(0, self.batch_size, (), generator=self.generator))
            alone = run(tokens[row : row + 1])
            leak = self._confirmed((alone - base[row : row + 1]).abs(), base, run, tokens[row : row + 1])
            if leak:
                return _fail(
                    f"on the trained weights row {row} changes by {leak:.2g} (relative, {mode} mode) without the other "
                    "rows; rows may not see each other",
                    {"leak": leak, "mode": mode},
                )
        return _pass("rows are independent", {})

    def canary(self, canary_tokens: int) -> GuardReport:
        """Loss on uniform tokens, in nats, against ln V minus five standard errors."""
        rows = max(1, math.ceil(canary_tokens / self.seq_len))
        vocabulary = self.model.vocab_size
        floor = math.log(vocabulary)
        worst: dict[str, float] = {}
        for mode in ("eval", "train"):
            run = self._runner(mode)
            losses = []
            for start in range(0, rows, self.batch_size):
                count = min(self.batch_size, rows - start)
                tokens = torch.randint(0, vocabulary, (count, self.seq_len + 1), generator=self.generator)
                tokens = tokens.to(self.device)
                logits = F.linear(run(tokens[:, :-1]), self.model.embedding.weight.detach())
                losses.append(F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"))
            loss = torch.cat(losses)
            mean = float(loss.mean())
            error = float(loss.std()) / math.sqrt(loss.numel()) if loss.numel() > 1 else float("inf")
            worst = {"loss": mean, "ln_vocab": floor, "standard_error": error, "tokens": loss.numel()}
            if not math.isfinite(mean):
                return _fail(f"the loss on uniform tokens is {mean} ({mode} mode); it must be finite", worst)
            if mean < floor - _CANARY_SIGMAS * error - 1e-9:
                return _fail(
                    f"the loss on uniformly random tokens is {mean:.4f}, below ln V = {floor:.4f} ({mode} mode, "
                    f"standard error {error:.2g}); random tokens cannot be predicted, so the model sees its targets",
                    worst,
                )
        return _pass("uniform tokens are not predicted", worst)

    def _tokens(self, length: int) -> Tensor:
        """Half the rows uniform, half with common tokens repeating as words do."""
        draw = torch.rand(self.batch_size, length, generator=self.generator, dtype=torch.float64)
        draw[::2] = draw[::2].pow(4)
        return (draw * self.model.vocab_size).long().to(self.device)

    def _runner(self, mode: str) -> Callable[[Tensor], Tensor]:
        self.model.train(mode == "train")

        def run(tokens: Tensor) -> Tensor:
            with torch.no_grad():
                return self.model.hidden(tokens)

        return run

    def _confirmed(self, difference: Tensor, base: Tensor, run: Callable[[Tensor], Tensor], given: Tensor) -> float:
        difference = torch.nan_to_num(difference, nan=float("inf"))
        length = difference.shape[1]
        return leak_size(
            difference,
            float(base.abs().max()),
            self.tolerance,
            lambda: noise_floor(run, given, self.tolerance, self.generator, self.weights)[:, :length],
        )


def _fail(reason: str, evidence: Mapping[str, float | int | str]) -> GuardReport:
    return GuardReport(guard="", passed=False, reason=reason, evidence=evidence)


def _pass(reason: str, evidence: dict[str, float]) -> GuardReport:
    return GuardReport(guard="", passed=True, reason=reason, evidence=evidence)

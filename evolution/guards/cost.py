"""A training step may cost at most four times the reference's time and six times its memory.

Time is CPU time of forward and backward of the whole model, candidate and reference in turns, medians compared. A
ratio far below the cap is accepted after one pair; one above it is measured again twice before it rejects, because a
busy machine disturbs caches. On a GPU it is wall time between synchronisations.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from evolution.guards.report import GuardReport
from evolution.guards.subject import ProbedSize, Subject
from models.language_model import LanguageModel

NAME = "cost"
TIME_CAP = 4.0
MEMORY_CAP = 6.0
_ROUNDS = (1, 3, 5, 9)


def check(subject: Subject) -> GuardReport:
    """Time at every size, memory at the one with the largest step."""
    times: dict[str, float] = {}
    for size in subject.sizes:
        candidate, reference = subject.model(size), subject.model(size, reference=True)
        ratio = times[size.name] = _time_ratio(subject, size, candidate, reference)
        if ratio > TIME_CAP:
            return _fail(
                f"a training step takes {ratio:.1f} times the reference's time at {size.name}", TIME_CAP, times
            )
    size = max(subject.sizes, key=lambda row: row.batch_size * row.seq_len * row.d_model)
    memory = _peak_bytes(subject, size, subject.model(size))
    limit = _peak_bytes(subject, size, subject.model(size, reference=True))
    evidence = {"time_ratio": times, "memory_ratio": memory / limit, "peak_bytes": memory}
    if memory > MEMORY_CAP * limit:
        what = f"a training step holds {memory / limit:.1f} times the reference's memory at {size.name}"
        return _fail(what, MEMORY_CAP, evidence)
    return GuardReport(guard=NAME, passed=True, reason="time and memory stay within the caps", evidence=evidence)


def _fail(what: str, cap: float, evidence: Mapping[str, object]) -> GuardReport:
    return GuardReport(
        guard=NAME,
        passed=False,
        reason=f"{what}; at most {cap:g} times is allowed: replace loops over positions by whole-tensor operations",
        evidence=dict(evidence),
    )


def _step(subject: Subject, size: ProbedSize, model: LanguageModel, tokens: Tensor) -> float:
    on_gpu = subject.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    if on_gpu:
        torch.cuda.synchronize()
    started = clock()
    model.hidden(tokens).sum().backward()  # type: ignore[no-untyped-call]
    if on_gpu:
        torch.cuda.synchronize()
    taken = clock() - started
    model.zero_grad(set_to_none=True)
    return taken


def _tokens(subject: Subject, size: ProbedSize) -> Tensor:
    shape = (size.batch_size, size.seq_len)
    return torch.randint(0, size.vocab_size, shape, generator=subject.generator("cost")).to(subject.device)


def _time_ratio(subject: Subject, size: ProbedSize, candidate: LanguageModel, reference: LanguageModel) -> float:
    tokens = _tokens(subject, size)
    ratio = float("inf")
    for rounds in _ROUNDS:
        taken: tuple[list[float], list[float]] = ([], [])
        _step(subject, size, reference, tokens)
        _step(subject, size, candidate, tokens)
        for _ in range(rounds):
            taken[0].append(_step(subject, size, candidate, tokens))
            taken[1].append(_step(subject, size, reference, tokens))
        now = statistics.median(taken[0]) / max(statistics.median(taken[1]), 1e-9)
        ratio = min(ratio, now)
        if ratio < (0.7 * TIME_CAP if rounds == 1 else TIME_CAP) or now > 5.0 * TIME_CAP:
            break
    return ratio


class _Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Largest sum of bytes of tensors alive at one time, to about 5 %."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: dict[StorageWeakRef, int] = {}
        self.total = 0
        self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                if reference not in self.live:
                    self.live[reference] = storage.nbytes()
                    self.total += storage.nbytes()
        if self.total > 1.05 * self.peak:
            alive = [row for row in self.live if not row.expired()]  # type: ignore[no-untyped-call]
            self.live = {row: self.live[row] for row in alive}
            self.total = sum(self.live.values())
            self.peak = max(self.peak, self.total)
        return output


def _peak_bytes(subject: Subject, size: ProbedSize, model: LanguageModel) -> int:
    tokens = _tokens(subject, size)
    recorder = _Peak()
    with recorder:
        model.hidden(tokens).sum().backward()  # type: ignore[no-untyped-call]
    return recorder.peak

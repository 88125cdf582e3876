"""`evoscale bench mixers`: what the mixers' cores cost beside softmax attention, forward and backward.

One thread, four heads of 64, 4,096 tokens a step however they are cut into sequences. Each figure is a ratio of
medians of CPU seconds, the two interleaved in the same run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from experiments.benches.registry import Options
from experiments.benches.row import Row, Targets

if TYPE_CHECKING:
    from torch import Tensor

_HEADS, _WIDTH, _TOKENS = 4, 64, 4096
_ROUNDS, _QUICK_ROUNDS = 9, 1
_LENGTHS, _QUICK_LENGTHS = (256, 1024, 2048), (256,)


def measure(options: Options, targets: Targets) -> Iterator[Row]:
    """Time every core against fused attention, and the dispatch against both forms at a short length."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = _QUICK_ROUNDS if options.quick else _ROUNDS
        for length in _QUICK_LENGTHS if options.quick else _LENGTHS:
            cores, leaves = _cores(length)
            times = _interleaved(cores, leaves, rounds)
            for name in cores:
                if name != "attention":
                    yield targets.row(f"{name}, T = {length}", times[name] / times["attention"], "x attention")
        for length in (64, 128, 256):
            yield targets.row(f"dispatch of retention, T = {length}", _dispatch(length, rounds), "x the faster form")
    finally:
        torch.set_num_threads(threads)


def _signals(length: int) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    import torch

    from data.keyed_random import torch_generator

    shape = (_TOKENS // length, _HEADS, length)

    def draw(index: int, *more: int) -> Tensor:
        values = torch.randn(*shape, *more, generator=torch_generator("bench mixers", length, index))
        return values.requires_grad_()

    signals = [draw(index, _WIDTH) for index in range(3)]
    decay = torch.log1p(-(2.0 ** (-5 - torch.arange(_HEADS, dtype=torch.float32))))
    return signals, decay, draw(3), draw(4)


def _cores(length: int) -> tuple[dict[str, Callable[[], Tensor]], list[Tensor]]:
    from torch.nn import functional as F  # noqa: N812

    from models.pipeline.decayed_attention import decayed_attention
    from models.pipeline.delta_rule import delta_rule

    (q, k, v), constant, rates, gains = _signals(length)
    cores: dict[str, Callable[[], Tensor]] = {
        "attention": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        "retention": lambda: decayed_attention(q, k, v, constant)[0],
        "linear attention": lambda: decayed_attention(F.elu(q) + 1, F.elu(k) + 1, F.pad(v, (0, 1), value=1.0), None)[0],
        "state space": lambda: decayed_attention(q[:, :1], k[:, :1], v, F.logsigmoid(rates))[0],
        "gated delta rule": lambda: delta_rule(
            F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, gains.sigmoid(), F.logsigmoid(rates)
        )[0],
    }
    return cores, [q, k, v, rates, gains]


def _interleaved(cores: dict[str, Callable[[], Tensor]], leaves: list[Any], rounds: int) -> dict[str, float]:
    """Median CPU seconds of a forward and backward of each core; one unmeasured round first."""
    seconds: dict[str, list[float]] = {name: [] for name in cores}
    for number in range(rounds + 1):
        for name, core in cores.items():
            for leaf in leaves:
                leaf.grad = None
            began = time.process_time()
            core().sum().backward()  # type: ignore[no-untyped-call]
            if number:
                seconds[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _dispatch(length: int, rounds: int) -> float:
    """The form the dispatch takes over the faster of the two forms."""
    from models.pipeline import decayed_attention as core

    (q, k, v), constant, _, _ = _signals(length)
    forms: dict[str, Callable[[], Tensor]] = {
        "parallel": lambda: core.parallel(q, k, v, constant)[0],
        "chunkwise": lambda: core.chunkwise(q, k, v, constant, core.CHUNK)[0],
    }
    times = _interleaved(forms, [q, k, v], rounds)
    taken = "parallel" if core.form_of(length, None) is None else "chunkwise"
    return times[taken] / min(times.values())

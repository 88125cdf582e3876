"""Model FLOPs utilisation on this machine's first GPU, against the peak of a large product measured here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from experiments.benches.harness import Setting

_STEPS = 100


def gpu_utilisation(setting: Setting) -> Iterator[tuple[str, float, str]]:
    """Rows (name, value, unit) of a GPU run at `setting`'s vocabulary and 32 sequences a step.

    The peak is the GPU's own rate on an 8192 x 8192 product in the run's precision, so that the share needs no
    table of cards. Steps are counted between two synchronisations.
    """
    import torch

    from experiments.benches.harness import bench_corpus, bench_spec
    from models.language_model import attention_class
    from training.flops import training_flops
    from training.trainer import Trainer

    corpus = bench_corpus(setting)
    spec = bench_spec(replace(setting, batch_size=32), corpus, _STEPS, device_kind="cuda")
    marks: list[float] = []

    def mark() -> bool:
        if len(marks) in (20, _STEPS - 2):
            torch.cuda.synchronize()
        marks.append(time.perf_counter())
        return False

    Trainer(spec, corpus, attention_class(spec.framework), should_stop=mark).run()
    seconds = (marks[_STEPS - 2] - marks[20]) / (_STEPS - 22)
    peak = _peak(torch.bfloat16 if spec.precision == "bf16" else torch.float32)
    name = torch.cuda.get_device_name()
    tokens = spec.batch_size * spec.seq_len
    yield f"GPU {spec.precision}: tokens a second", tokens / seconds, f"tokens/s on {name}"
    yield "GPU: model FLOPs utilisation", training_flops(spec) / spec.steps / seconds / peak, "of its measured peak"


def _peak(dtype: torch.dtype, size: int = 8192, times: int = 10) -> float:
    import torch

    left = torch.ones(size, size, device="cuda", dtype=dtype)
    for _ in range(3):
        left @ left
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        left @ left
    torch.cuda.synchronize()
    return times * 2 * size**3 / (time.perf_counter() - began)

"""`evoscale bench merge`: speed beside the naive algorithm, memory, and what a candidate costs beyond its evaluation.

The naive form keeps whole models in memory and sorts whole tensors, the algorithm that dominates the time of the
usual tool. Both read and write files, interleaved in one process, in CPU seconds; a ratio is that of medians. Memory
is measured in a child: the growth of its peak over what Python and torch take, in models.
"""

from __future__ import annotations

import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.benches.registry import Options
from experiments.benches.row import Row, Targets

if TYPE_CHECKING:
    from torch import Tensor

_SHAPE = {"width": 768, "layers": 12, "inner": 2048, "vocabulary": 16_000}
_QUICK = {"width": 64, "layers": 2, "inner": 128, "vocabulary": 500}
_DENSITY = 0.5
_METHODS = ("ties", "dare_ties", "slerp", "linear")
_CANDIDATES = 50


def measure(options: Options, targets: Targets) -> Iterator[Row]:
    """Write models of random weights, merge them both ways, and report; see the module."""
    shape = _QUICK if options.quick else _SHAPE
    tiny = ", tiny models" if options.quick else ""  # a row of its own: the targets are for real sizes
    with tempfile.TemporaryDirectory(prefix="evoscale-merge-") as name:
        folder = Path(name)
        size = _write_models(folder, shape)
        for method in _METHODS:
            fast, slow = _interleaved(folder, method, 1 if options.quick else 3)
            yield targets.row(
                f"{method}: naive over ours, CPU time{tiny}", slow / fast, f"x ({slow:.2f} s and {fast:.2f} s)"
            )
        for count in (3, 8):
            peak = _peak_memory(folder, count)
            yield targets.row(f"ties of {count} sources: memory beyond Python and torch{tiny}", peak / size, "models")
    yield from _candidate_rows(options, targets)


def _tensor_shapes(shape: dict[str, int]) -> dict[str, tuple[int, ...]]:
    width, inner = shape["width"], shape["inner"]
    named: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape["vocabulary"], width)}
    for layer in range(shape["layers"]):
        head = f"model.layers.{layer}."
        named |= {f"{head}self_attn.{part}_proj.weight": (width, width) for part in "qkvo"}
        named |= {f"{head}mlp.{part}_proj.weight": (inner, width) for part in ("gate", "up")}
        named[f"{head}mlp.down_proj.weight"] = (width, inner)
        named |= {f"{head}{part}_layernorm.weight": (width,) for part in ("input", "post_attention")}
    return named | {"model.norm.weight": (width,)}


def _write_models(folder: Path, shape: dict[str, int]) -> int:
    """`base`, `one`, `two` and `three` with random fp32 weights; the bytes of one."""
    import torch

    from data.keyed_random import torch_generator
    from evolution.merging.checkpoint_writer import CheckpointWriter

    shapes = {name: (sizes, torch.float32) for name, sizes in _tensor_shapes(shape).items()}
    for model in ("base", "one", "two", "three"):
        with CheckpointWriter(folder / model, shapes) as writer:
            for name, (sizes, _) in shapes.items():
                base = torch.randn(sizes, generator=torch_generator("merge bench", name)) * 0.02
                if model != "base":
                    base += torch.randn(sizes, generator=torch_generator("merge bench", model, name)) * 0.002
                writer.write(name, [base.reshape(-1)])
    return sum(math.prod(sizes) * 4 for sizes, _ in shapes.values())


def _content(folder: Path, method: str) -> dict[str, Any]:
    models = ["one"] if method == "slerp" else ["one", "two", "three"]
    sections = [{"model": str(folder / name), "parameters": {"weight": 0.5, "density": _DENSITY}} for name in models]
    content: dict[str, Any] = {"merge_method": method, "models": sections}
    return content if method == "linear" else content | {"base_model": str(folder / "base")}


def _interleaved(folder: Path, method: str, repeats: int) -> tuple[float, float]:
    """CPU seconds of our merge and of the naive one: medians."""
    from evolution.merging.merge_plan import merge_to
    from evolution.merging.recipe import parse_recipe

    recipe = parse_recipe(_content(folder, method), "bench")
    fast, slow = [], []
    for number in range(repeats):
        target = folder / f"out-{method}-{number}"
        fast.append(_cpu(partial(merge_to, recipe, target)))
        slow.append(_cpu(partial(_naive_merge, folder, method)))
        shutil.rmtree(target)
    return statistics.median(fast), statistics.median(slow)


def _cpu(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def _naive_merge(folder: Path, method: str) -> None:
    from safetensors.torch import load_file, save_file

    names = {"slerp": ("base", "one"), "linear": ("one", "two", "three")}.get(method, ("base", "one", "two", "three"))
    models = [load_file(folder / name / "model.safetensors") for name in names]
    combine = {"slerp": _naive_slerp, "linear": _naive_linear, "ties": _naive_ties, "dare_ties": _naive_dare_ties}
    merged = {name: combine[method]([model[name] for model in models]) for name in models[0]}
    save_file(merged, folder / "naive.safetensors")


def _naive_linear(tensors: list[Tensor]) -> Tensor:
    import torch

    weights = torch.full((len(tensors), *[1] * tensors[0].dim()), 0.5)
    return (torch.stack(tensors) * weights).sum(0) / weights.sum(0)


def _naive_slerp(tensors: list[Tensor]) -> Tensor:
    import numpy as np
    import torch

    one, other = (tensor.numpy() for tensor in tensors)
    cosine = float(np.sum((one / np.linalg.norm(one)) * (other / np.linalg.norm(other))))
    if abs(cosine) > 0.9995:
        return torch.from_numpy(0.5 * one + 0.5 * other)
    angle = math.acos(cosine)
    factor = np.float32(math.sin(angle / 2) / math.sin(angle))
    return torch.from_numpy(factor * one + factor * other)


def _naive_consensus(base: Tensor, deltas: list[Tensor], *, normalize: bool) -> Tensor:
    import torch

    stacked = torch.stack(deltas)
    weights = torch.full((len(deltas), *[1] * base.dim()), 0.5)
    weighted = stacked * weights
    majority = (weighted.sum(0) >= 0).to(weighted.dtype) * 2 - 1
    mask = weighted.sign() == majority
    merged = (weighted * mask).sum(0)
    if normalize:
        divisor = (weights * mask).sum(0)
        divisor[divisor.abs() < 1e-8] = 1
        merged = merged / divisor
    return base + merged


def _naive_ties(tensors: list[Tensor]) -> Tensor:
    import torch

    base, deltas = tensors[0], []
    for tensor in tensors[1:]:
        delta = tensor - base
        mask = torch.zeros_like(delta)
        order = torch.argsort(delta.abs().view(-1), descending=True)
        mask.view(-1)[order[: int(_DENSITY * delta.numel())]] = 1
        deltas.append(delta * mask)
    return _naive_consensus(base, deltas, normalize=True)


def _naive_dare_ties(tensors: list[Tensor]) -> Tensor:
    import torch

    base, deltas = tensors[0], []
    generator = torch.Generator().manual_seed(0)
    for tensor in tensors[1:]:
        delta = tensor - base
        kept = delta * torch.bernoulli(torch.full_like(delta, _DENSITY), generator=generator)
        after = kept.abs().sum()
        deltas.append(kept * (delta.abs().sum() / after) if after > 0 else kept)
    return _naive_consensus(base, deltas, normalize=False)


_CHILD = """
import sys, torch, numpy
from pathlib import Path
from evolution.merging.merge_plan import merge_to
from evolution.merging.recipe import parse_recipe
def peak():
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("VmHWM"))
folder, count = Path(sys.argv[1]), int(sys.argv[2])
names = ["one", "two", "three"]
linked = []
for number in range(count):
    link = folder / f"source-{count}-{number}"
    link.symlink_to(folder / names[number % 3])
    linked.append({"model": str(link), "parameters": {"weight": 0.5, "density": 0.5}})
torch.randn(1000).abs().sum(), numpy.random.PCG64(0)
before = peak()
content = {"merge_method": "ties", "base_model": str(folder / "base"), "models": linked}
merge_to(parse_recipe(content, "bench"), folder / f"peak-{count}")
print(peak() - before)
"""


def _peak_memory(folder: Path, count: int) -> int:
    """Bytes by which the peak of a child grows over what it takes before it merges."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(folder), str(count)], capture_output=True, text=True, check=True, cwd=root
    )
    return int(done.stdout)


def _candidate_rows(options: Options, targets: Targets) -> Iterator[Row]:
    """CPU time of writing and evaluating candidates, over that of evaluating alone."""
    from data.arithmetic_skills import SKILLS, arithmetic_problems
    from evolution.merging.benchmarks import BenchmarkConfig, answer_problems
    from evolution.merging.embedded_experts import ExpertsConfig, experts_folder
    from evolution.merging.parameter_space import ParameterSpace
    from evolution.merging.resident_model import SourceModels

    count = 4 if options.quick else _CANDIDATES
    with tempfile.TemporaryDirectory(prefix="evoscale-merge-") as name:
        quick = ExpertsConfig(width=16, heads=2, batch=16, base_steps=2, expert_steps=2)
        folder = experts_folder(quick, Path(name)) if options.quick else experts_folder()
        with SourceModels([str(folder / part) for part in ("base", *SKILLS)]) as sources:
            tokenizer, model = sources.tokenizer(), sources.load(sources.names[0])
            asked = BenchmarkConfig(benchmark_name="arithmetic", batch_size=300, max_new_tokens=4, shots=0)
            problems = arithmetic_problems("evolve", 300)
            space = ParameterSpace(
                merge_method="ties",
                base_model=sources.names[0],
                models=tuple(sources.names[1:]),
                n_layers=sources.n_layers,
                groups=3,
            )
            vectors = _vectors(count, space.n_dimensions)
            whole, alone = [], []
            for vector in vectors:
                began = time.process_time()
                sources.write(space.decode(vector), model)
                written = time.process_time()
                answer_problems(model, tokenizer, problems, asked)
                whole.append(time.process_time() - began)
                alone.append(time.process_time() - written)
    yield targets.row(
        f"{count if options.quick else _CANDIDATES} candidates: writing and evaluating over evaluating",
        sum(whole) / sum(alone),
        f"x ({sum(whole):.2f} s and {sum(alone):.2f} s CPU)",
    )


def _vectors(count: int, n_dimensions: int) -> list[Any]:
    from data.keyed_random import numpy_generator

    return list(numpy_generator("merge bench candidates").random((count, n_dimensions)))

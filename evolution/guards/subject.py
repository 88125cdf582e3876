"""The candidate under guard: its module, built layers and models, and the random numbers that probe it."""

from __future__ import annotations

import traceback
import types
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from data.keyed_random import seed_of, torch_generator
from evolution.guards.precision import double_precision, names_narrow_dtype
from frameworks.program import load_module, split_source
from frameworks.registry import Framework
from frameworks.registry import framework as framework_named
from models.language_model import LanguageModel

EVALUATION_BATCHES = 4  # the trainer evaluates this many training batches at once


@dataclass(frozen=True, kw_only=True)
class ProbedSize:
    """One size a candidate is probed at: what its runs will use."""

    d_model: int
    n_heads: int
    n_layers: int
    vocab_size: int
    seq_len: int
    batch_size: int

    @property
    def name(self) -> str:
        """For evidence and messages."""
        return f"d_model={self.d_model}, n_heads={self.n_heads}"


class Subject:
    """A candidate program and the sizes it will run at.

    Args:
        framework: name in the registry.
        source: the whole program file. It is executed here: use this class only in a worker or on trusted text.
        sizes: sizes of the ladder, smallest first.
        probe_seed: varies lengths, positions and inputs of all probes.
        device: where the candidate will train.
        precision: of its runs, fp32 or bf16.

    Raises:
        ValueError: no sizes.
    """

    def __init__(
        self,
        framework: str,
        source: str,
        sizes: Sequence[ProbedSize],
        probe_seed: int,
        device: str = "cpu",
        precision: str = "fp32",
    ) -> None:
        if not sizes:
            raise ValueError("sizes is empty; a candidate is probed at one size at least")
        self.framework: Framework = framework_named(framework)
        self.source = source
        self.sizes = tuple(sizes)
        self.probe_seed = probe_seed
        self.device = torch.device(device)
        self.precision = precision

    @staticmethod
    def from_arguments(arguments: Mapping[str, Any]) -> Subject:
        """The subject of a worker's arguments, see `worker.check`."""
        return Subject(
            arguments["framework"],
            arguments["source"],
            [ProbedSize(**row) for row in arguments["sizes"]],
            int(arguments["probe_seed"]),
            arguments.get("device", "cpu"),
            arguments.get("precision", "fp32"),
        )

    @cached_property
    def module(self) -> types.ModuleType:
        """The candidate's module, executed on first use."""
        return load_module(self.source, f"evoscale_candidate_{seed_of('guards', self.source):x}")

    @cached_property
    def attention(self) -> type[nn.Module]:
        """The shell around the candidate's block."""
        found: type[nn.Module] = getattr(self.module, self.framework.evolvable_class)
        return found

    @cached_property
    def reference_attention(self) -> type[nn.Module]:
        """The shell around the shipped block."""
        module = load_module(self.framework.pristine, f"evoscale_reference_{self.framework.name}")
        found: type[nn.Module] = getattr(module, self.framework.evolvable_class)
        return found

    def with_module(self, module: types.ModuleType) -> Subject:
        """The same candidate with another form of its module, as `decisions.instrumented_module` makes it."""
        twin = Subject(self.framework.name, self.source, self.sizes, self.probe_seed, str(self.device), self.precision)
        twin.__dict__["module"] = module
        return twin

    @property
    def smallest(self) -> ProbedSize:
        """The size that costs least."""
        return min(self.sizes, key=lambda size: size.d_model * size.n_layers)

    def generator(self, *key: str | int) -> torch.Generator:
        """Random numbers for one probe: they depend on `probe_seed` and the key only."""
        return torch_generator("guard", self.probe_seed, *key)

    def integers(self, low: int, high: int, count: int, *key: str | int) -> list[int]:
        """`count` integers in [low, high]."""
        return [int(row) for row in torch.randint(low, high + 1, (count,), generator=self.generator(*key))]

    def layer(self, size: ProbedSize, *, seed: int = 0) -> nn.Module:
        """The candidate's attention layer in the default dtype, built under a forked random state."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of("guard layer", self.probe_seed, seed))
            return self.attention(d_model=size.d_model, n_heads=size.n_heads).to(self.device)

    def in_double(self) -> AbstractContextManager[None]:
        """`double_precision` as far as the block's text needs it."""
        return double_precision(widen=self._names_narrow_dtype)

    @cached_property
    def _names_narrow_dtype(self) -> bool:
        return names_narrow_dtype(split_source(self.source)[1])

    def double_layer(self, size: ProbedSize, *, seed: int = 0) -> nn.Module:
        """The layer in float64; run it inside `in_double`."""
        with self.in_double():
            return self.layer(size, seed=seed).double()

    def model(self, size: ProbedSize, *, reference: bool = False) -> LanguageModel:
        """The whole language model around the candidate's layer, or around the shipped block."""
        attention = self.reference_attention if reference else self.attention
        model = LanguageModel(
            attention,
            vocab_size=size.vocab_size,
            d_model=size.d_model,
            n_layers=size.n_layers,
            n_heads=size.n_heads,
            seed=self.probe_seed % 1000,
        )
        return model.to(self.device)

    def explain(self, error: BaseException) -> str:
        """The error in a line, with the line of the block it came from."""
        head = split_source(self.source)[0].count("\n")
        block_lines = split_source(self.source)[1].count("\n")
        lines = [
            frame.lineno - head
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename.startswith("<evoscale_candidate") and frame.lineno is not None
        ]
        inside = [line for line in lines if 0 < line <= block_lines]
        where = f" (line {inside[-1]} of the block)" if inside else ""
        return f"{type(error).__name__}: {str(error)[:300]}{where}"


def mixer(layer: nn.Module) -> nn.Module:
    """The candidate's block inside its shell."""
    found: Any = layer.mixer
    return found  # type: ignore[no-any-return]


def worst(values: Tensor) -> float:
    """The largest absolute value; infinite when any is not finite, 0 for none."""
    if values.numel() == 0:
        return 0.0
    found = float(values.detach().abs().max())
    return found if found == found else float("inf")

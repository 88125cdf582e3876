"""What a candidate does on fixed inputs, as a hash: a renamed or reordered copy has the same one.

Identity by syntax tree tells apart programs that differ in a name. The fingerprint holds outputs, gradients with
respect to the input, and the lengths of the parameters' gradients, at every size and both modes, as built and with the
weights moved, in float64, each rounded to seven digits: enough to see past the order of a sum, far from any change
that training would notice. Nothing in it depends on names or on the order in which parameters are made: every random
draw starts from the same state, so it depends on its shape only.

It refuses nothing. A candidate could forge its own, and would gain only that it is taken for another one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from data.keyed_random import torch_generator
from evolution.guards.inputs import sequence_inputs
from evolution.guards.report import GuardReport
from evolution.guards.subject import ProbedSize, Subject, mixer

NAME = "fingerprint"
_DIGITS = 7
_PROJECTIONS = 4


def check(subject: Subject) -> GuardReport:
    """Always passes; the evidence holds `fingerprint`, 64 hex digits, or None where it could not be taken."""
    try:
        with subject.in_double():
            found: str | None = fingerprint(subject)
    except (RuntimeError, ValueError):  # a size at which an honest block is singular, say
        found = None
    return GuardReport(guard=NAME, passed=True, reason="taken", evidence={"fingerprint": found})


def fingerprint(subject: Subject) -> str:
    """sha256 hex of the candidate's behaviour; run it inside `subject.in_double()`.

    Raises:
        RuntimeError, ValueError: the candidate fails on the inputs.
    """
    rows: list[Any] = [subject.framework.name, subject.framework.contract_version]
    for size in subject.sizes:
        with _alike_draws():
            layer = subject.attention(d_model=size.d_model, n_heads=size.n_heads).to(subject.device).double()
        shapes = sorted(tuple(parameter.shape) for parameter in mixer(layer).parameters())
        rows.append([[list(shape) for shape in shapes], sorted(_summary(row) for row in mixer(layer).parameters())])
        for state in ("built", "moved"):
            if state == "moved":
                _move(mixer(layer))
            for train, length in ((True, size.seq_len), (False, size.seq_len // 2 + 3)):
                rows.append(_behaviour(layer.train(train), size, length, subject.device))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


class _Restarting(TorchFunctionMode):
    """Starts the global random state anew at every call of torch, so that no draw depends on the ones before."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        torch.default_generator.manual_seed(0)
        return func(*args, **(kwargs or {}))


@contextmanager
def _alike_draws() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]), _Restarting():
        yield


def _move(block: nn.Module) -> None:
    """Add to every parameter noise that depends on its shape only."""
    with torch.no_grad():
        for parameter in block.parameters():
            generator = torch_generator("fingerprint weights", *parameter.shape)
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.3 * noise.to(parameter))


def _behaviour(layer: nn.Module, size: ProbedSize, length: int, device: torch.device) -> list[Any]:
    generator = torch_generator("fingerprint inputs", size.d_model, length)
    x = sequence_inputs("normalised", 2, length, size.d_model, generator).to(device).requires_grad_()
    layer.zero_grad(set_to_none=True)
    y: Tensor = layer(x)
    weights = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y)
    (y * weights).sum().backward()  # type: ignore[no-untyped-call]
    gradients = [torch.zeros(()) if row.grad is None else row.grad for row in mixer(layer).parameters()]
    given = torch.zeros_like(x) if x.grad is None else x.grad
    return [
        _projections(y.detach(), generator),
        _projections(given, generator),
        sorted(_rounded(float(gradient.norm())) for gradient in gradients),
    ]


def _projections(values: Tensor, generator: torch.Generator) -> list[str]:
    """A few random sums of a tensor, relative to its length, and the length itself."""
    flat = values.double().flatten().cpu()
    length = float(flat.norm())
    directions = torch.randn(_PROJECTIONS, flat.numel(), generator=generator, dtype=torch.float64)
    relative = (directions @ flat / max(length, 1e-300)).tolist()
    return [_rounded(length), *(f"{row:.{_DIGITS}f}" for row in relative)]


def _summary(parameter: Tensor) -> str:
    """A parameter as built: its shape, mean and length."""
    values = parameter.detach().double()
    return f"{tuple(values.shape)} {_rounded(float(values.mean()))} {_rounded(float(values.norm()))}"


def _rounded(value: float) -> str:
    return "0" if abs(value) < 1e-12 else f"{value:.{_DIGITS - 1}e}"

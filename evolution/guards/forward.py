"""Outputs and gradients have the right shape and dtype, are finite, and reach every parameter.

float32, float64 and bfloat16 autocast; a parameter without a gradient at initialisation and at weights away from it
is dead: it would count for parity and learn nothing. Autocast decides only when the runs use it; otherwise what it
said is kept as evidence, because not every operation exists in bfloat16 on every device.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from evolution.guards.inputs import sequence_inputs
from evolution.guards.parameter_states import settled_layer
from evolution.guards.report import GuardReport
from evolution.guards.subject import ProbedSize, Subject, mixer

NAME = "forward"
_INPUT = "the input"


def check(subject: Subject) -> GuardReport:
    """Shapes and gradients at every size, then dead parameters, then autocast at the smallest size."""
    silent: dict[str, set[str]] = {}
    for number, size in enumerate(subject.sizes):
        precision = ("float32", "float64")[number % 2]
        for used in {precision, "float32"} if size is not subject.smallest else {"float32", "float64"}:
            report, dead = _pass(subject, size, used, "init")
            if report is not None:
                return report
            silent.setdefault(size.name, dead).intersection_update(dead)
    for size in subject.sizes:
        dead = silent[size.name]
        for state in ("near", "mixed", "positive", "negative"):
            if dead:
                dead &= _pass(subject, size, "float32", state)[1]
        if _INPUT in dead:
            return _fail(f"the output does not depend on x, q, k or v at {size.name}; return a mix of the values")
        if dead:
            return _fail(
                f"parameter {sorted(dead)[0]} gets no gradient at {size.name}, neither at initialisation nor at four "
                "other weights; use it in forward (without detach or rounding) or remove it",
                {"dead": sorted(dead), "d_model": size.d_model},
            )
    autocast = _autocast(subject)
    if autocast is not None and subject.precision == "bf16":
        return _fail(f"under bfloat16 autocast, which these runs use: {autocast}")
    return GuardReport(
        guard=NAME,
        passed=True,
        reason="shapes, dtypes and gradients are right",
        evidence={"sizes": len(subject.sizes), "autocast": autocast or "works"},
    )


def _autocast(subject: Subject) -> str | None:
    """What goes wrong under autocast, None for nothing."""
    try:
        report, _ = _pass(subject, subject.smallest, "autocast", "init")
    except RuntimeError as error:  # NotImplementedError for a kernel that does not exist is one
        return subject.explain(error)
    return None if report is None else report.reason


def _fail(reason: str, evidence: dict[str, object] | None = None) -> GuardReport:
    return GuardReport(guard=NAME, passed=False, reason=reason, evidence=evidence or {})


def _pass(subject: Subject, size: ProbedSize, precision: str, state: str) -> tuple[GuardReport | None, set[str]]:
    """One forward and backward; the report of a fault, and the names of parameters without a gradient."""
    with subject.in_double() if precision == "float64" else nullcontext():
        layer = settled_layer(subject, size, state, double=precision == "float64")
        if layer is None:
            return None, set()
        generator = subject.generator("forward", size.d_model, precision, state)
        length = min(size.seq_len, 17 + subject.probe_seed % 8)
        dtype = torch.float64 if precision == "float64" else torch.float32
        x = sequence_inputs("normalised", 2, length, size.d_model, generator).to(subject.device, dtype).requires_grad_()
        seen: list[Tensor] = []
        handle = mixer(layer).register_forward_hook(lambda module, given, output: seen.append(output))
        with torch.autocast(subject.device.type, torch.bfloat16, enabled=precision == "autocast"):
            y = layer(x)
        handle.remove()
        report = _output_fault(layer, seen[0] if seen else None, y, x, size, precision)
        if report is None:
            y.float().mul(torch.randn(y.shape, generator=generator).to(y)).sum().backward()
            report = _gradient_fault(layer, x, size, precision) if state == "init" else None
    dead = {
        f"self.{name}"
        for name, parameter in mixer(layer).named_parameters()
        if parameter.grad is None or not bool((parameter.grad != 0).any())
    }
    if x.grad is None or not bool((x.grad != 0).any()):
        dead.add(_INPUT)
    return report, dead


def _output_fault(
    layer: nn.Module, output: object, y: Tensor, x: Tensor, size: ProbedSize, precision: str
) -> GuardReport | None:
    where = f"at {size.name} in {precision}"
    if not isinstance(output, Tensor):
        return _fail(f"forward returns {type(output).__name__} {where}; it must return one tensor (B, H, T, D)")
    wanted = (x.shape[0], size.n_heads, x.shape[1], size.d_model // size.n_heads)
    if tuple(output.shape) != wanted:
        return _fail(f"forward returns shape {tuple(output.shape)} {where}; it must be (B, H, T, D) = {wanted}")
    if precision != "autocast" and y.dtype != x.dtype:
        return _fail(f"forward returns {y.dtype} for {x.dtype} input {where}; keep the input's dtype")
    if not bool(torch.isfinite(output).all()):
        count = int((~torch.isfinite(output)).sum())
        return _fail(f"{count} of {output.numel()} outputs are not finite {where}; guard exponentials and divisions")
    if not y.requires_grad:
        return _fail(f"the output carries no gradient {where}; do not detach the whole result")
    return None


def _gradient_fault(layer: nn.Module, x: Tensor, size: ProbedSize, precision: str) -> GuardReport | None:
    named = [("the input", x), *((f"self.{name}", row) for name, row in mixer(layer).named_parameters())]
    for name, tensor in named:
        if tensor.grad is not None and not bool(torch.isfinite(tensor.grad).all()):
            return _fail(
                f"the gradient of {name} is not finite at {size.name} in {precision}; avoid sqrt, log and division "
                "at 0, and rows where everything is masked"
            )
    return None

"""A call leaves nothing behind: same input, same output, whatever was called before.

Checked by behaviour (calls in different orders) and by what lies in the module before and after: parameters, buffers,
plain attributes, closures, the global random state, and the input itself. Objects whose content cannot be compared,
iterators above all, may not be kept: one could count the calls.
"""

from __future__ import annotations

import random
import types
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evolution.guards.inputs import sequence_inputs
from evolution.guards.report import GuardReport
from evolution.guards.subject import ProbedSize, Subject, mixer, worst

NAME = "state"
_TOLERANCE = 1e-12  # two identical calls may differ by vectorisation of unaligned memory, never by more
_MAX_ITEMS = 20_000
_UNCHANGING = (
    types.ModuleType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.GetSetDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.CodeType,
    types.EllipsisType,
    range,
    slice,
    property,
    staticmethod,
    classmethod,
    torch.finfo,
    torch.iinfo,
    torch.layout,
    torch.memory_format,
)


def check(subject: Subject) -> GuardReport:
    """At the smallest and the largest size."""
    for size in {subject.smallest, subject.sizes[-1]}:
        with subject.in_double():
            report = _check_size(subject, size)
        if report is not None:
            return report
    return GuardReport(guard=NAME, passed=True, reason="calls leave nothing behind")


def _check_size(subject: Subject, size: ProbedSize) -> GuardReport | None:
    layer = subject.double_layer(size)
    generator = subject.generator("state", size.d_model)
    lengths = (size.seq_len, max(2, size.seq_len // 2 + 1), size.seq_len)
    batches = (size.batch_size, 2, size.batch_size)
    inputs = [
        sequence_inputs("normalised", batch, length, size.d_model, generator).to(subject.device)
        for batch, length in zip(batches, lengths, strict=True)
    ]
    copies = [x.clone() for x in inputs]
    before = dict(_contents(subject, layer))
    for path, content in before.items():
        if isinstance(content, _Opaque):
            return _fail(
                f"{path} holds a {content.kind}, which can change between calls; keep tensors, numbers, text, tuples, "
                "lists, dicts, modules and functions"
            )
    random_state = _random_state(subject)
    outputs: dict[tuple[str, int], Tensor] = {}
    for mode, order in (("train", (0, 1, 2, 0)), ("eval", (0, 2, 1, 0)), ("train", (1, 0))):
        layer.train(mode == "train")
        for index in order:
            with torch.set_grad_enabled(mode == "train"):
                y = layer(inputs[index]).detach()
            if _random_state(subject) != random_state:
                return _fail(
                    "forward draws from the global random state; a block draws random numbers in __init__ only"
                )
            earlier = outputs.setdefault((mode, index), y)
            change = worst(y - earlier) / max(worst(earlier), 1e-30)
            if change > _TOLERANCE:
                return _fail(
                    f"the same input gives another output ({change:.2g} relative, {mode} mode) after other calls; "
                    "compute everything in forward from x, q, k, v and parameters",
                    {"change": change, "mode": mode, "d_model": size.d_model},
                )
    for x, copy in zip(inputs, copies, strict=True):
        if not torch.equal(x, copy):
            return _fail("forward changes its input x in place; clone it first")
    layer.train(True)
    after = dict(_contents(subject, layer))
    for path in sorted(set(before) | set(after)):
        if before.get(path) != after.get(path):
            return _fail(
                f"forward changes {path}; only __init__ may set attributes, parameters and buffers", {"path": path}
            )
    return None


def _random_state(subject: Subject) -> tuple[object, ...]:
    states: list[object] = [torch.get_rng_state().numpy().tobytes(), random.getstate()]
    if subject.device.type == "cuda":
        states.append(torch.cuda.get_rng_state(subject.device).numpy().tobytes())
    return tuple(states)


def _fail(reason: str, evidence: dict[str, object] | None = None) -> GuardReport:
    return GuardReport(guard=NAME, passed=False, reason=reason, evidence=evidence or {})


@dataclass(frozen=True)
class _Opaque:
    """Something whose content cannot be compared."""

    kind: str


def _contents(subject: Subject, layer: nn.Module) -> Iterator[tuple[str, object]]:
    """Path and comparable content of everything the block's objects, classes and functions hold."""
    waiting: list[tuple[str, object]] = [("self", mixer(layer))]
    waiting += [(name, value) for name, value in vars(subject.module).items() if not name.startswith("__")]
    seen: set[int] = set()
    while waiting and len(seen) < _MAX_ITEMS:
        path, item = waiting.pop()
        if isinstance(item, Tensor):
            yield path, (tuple(item.shape), item._version, item.detach().double().sum().item() if item.numel() else 0.0)
            continue
        if isinstance(item, str | bytes | int | float | complex | bool | None | torch.dtype | torch.device):
            yield path, repr(item)[:200]
            continue
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, nn.Module):
            waiting += [(f"{path}.{name}", value) for name, value in vars(item).items() if name != "training"]
        elif isinstance(item, dict):
            yield path, len(item)
            waiting += [(f"{path}[{key!r:.40}]", value) for key, value in item.items()]
        elif isinstance(item, list | tuple | set | frozenset):
            yield path, len(item)
            waiting += [(f"{path}[{index}]", value) for index, value in enumerate(item)]
        elif isinstance(item, types.FunctionType):
            if item.__module__ == subject.module.__name__:
                waiting += [(f"{path} default {index}", value) for index, value in enumerate(item.__defaults__ or ())]
                waiting += [(f"{path}.{name}", value) for name, value in vars(item).items()]
                for index, cell in enumerate(item.__closure__ or ()):
                    waiting.append((f"{path} closure {index}", _cell(cell)))
        elif isinstance(item, types.MethodType):
            waiting += [(path, item.__func__), (path, item.__self__)]
        elif isinstance(item, type):
            if item.__module__ == subject.module.__name__:
                waiting += [(f"{path}.{name}", value) for name, value in vars(item).items() if name[:2] != "__"]
        elif type(item).__module__ == subject.module.__name__:
            waiting += [(f"{path}.{name}", value) for name, value in vars(item).items()]
        elif not isinstance(item, _UNCHANGING) and path.startswith("self"):
            yield path, _Opaque(type(item).__name__)


def _cell(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return None

"""The candidate builds at every size, the same way twice, and leaves the process as it found it."""

from __future__ import annotations

import random

import torch
from torch import nn

from evolution.guards.report import GuardReport
from evolution.guards.subject import Subject, mixer

NAME = "build"


def check(subject: Subject) -> GuardReport:
    """Build twice with one seed at every size and compare parameters, buffers and process-wide switches."""
    before = _process_state()
    for size in subject.sizes:
        first, second = subject.layer(size), subject.layer(size)
        for name, value in first.state_dict().items():
            other = second.state_dict().get(name)
            if name.startswith("mixer.") and (other is None or not torch.equal(value, other)):
                return _fail(
                    f"building twice from the same random state gives another {name} at {size.name}; "
                    "initialise from torch.randn, torch.rand, nn.init or constants in __init__"
                )
        stray = _unregistered(mixer(first))
        if stray is not None:
            return _fail(
                f"self.{stray} holds parameters where nn.Module does not see them, so they would not be trained or "
                "counted; use nn.Parameter, nn.ParameterList or nn.ModuleList attributes"
            )
    after = _process_state()
    for switch, value in before.items():
        if after[switch] != value:
            return _fail(
                f"building changes {switch} of the process; a block may only make its own parameters and buffers"
            )
    return GuardReport(guard=NAME, passed=True, reason=f"builds at {len(subject.sizes)} sizes, reproducibly")


def _fail(reason: str) -> GuardReport:
    return GuardReport(guard=NAME, passed=False, reason=reason)


def _process_state() -> dict[str, object]:
    return {
        "the default dtype": torch.get_default_dtype(),
        "the number of threads": torch.get_num_threads(),
        "the gradient mode": torch.is_grad_enabled(),
        "the deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "the random state of torch": torch.get_rng_state().numpy().tobytes(),
        "the random state of Python": random.getstate(),
    }


def _unregistered(block: nn.Module) -> str | None:
    """The attribute with a parameter inside a plain container or an unregistered module, if any."""
    known = {id(parameter) for parameter in block.parameters()}
    for module in block.modules():
        for name, value in vars(module).items():
            if name.startswith("_") and name in vars(nn.Module()):
                continue
            waiting, seen = [value], 0
            while waiting and seen < 1000:
                seen += 1
                item = waiting.pop()
                if isinstance(item, nn.Parameter) and id(item) not in known:
                    return name
                if isinstance(item, nn.Module) and any(id(row) not in known for row in item.parameters()):
                    return name
                if isinstance(item, dict):
                    waiting.extend(item.values())
                elif isinstance(item, list | tuple | set):
                    waiting.extend(item)
    return None

"""Nothing leaks behind a condition that no other probe meets.

Every decision of the block (see `decisions`) that came to the same side in all ordinary calls is forced to the other
side, and the layer is probed for leaks there. A leak found that way is not held against the block by itself, for a
forced branch may be one that the block never takes wrongly (no mask for a single token). So lengths, batch sizes and
model sizes are searched until the decision comes to that side by itself: if it leaks there, or if it comes there
nowhere, the block is refused.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from evolution.guards.decisions import Decisions, instrumented_module
from evolution.guards.inputs import sequence_inputs
from evolution.guards.parameter_states import move_parameters
from evolution.guards.report import GuardReport
from evolution.guards.subject import ProbedSize, Subject, worst
from frameworks.program import split_source

NAME = "branches"
_LEAK = 1e-7
_SHORT = 23  # a prime that is no width, head count or batch size of a probe
_MOST_DECISIONS = 24
_MOST_REACHED = 3
_HEADS = ((1, 16), (2, 8), (2, 24), (3, 16), (4, 32), (6, 16), (8, 8), (8, 16), (12, 8), (16, 8), (1, 64), (2, 128))
# What a block may raise at a length or size it does not take.
FAILURES = (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError, AttributeError, KeyError, AssertionError)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A shape, mode and weights to call the layer at."""

    size: ProbedSize
    length: int
    batch: int
    train: bool
    state: str = "init"


def check(subject: Subject) -> GuardReport:
    """Ordinary calls first, then every one-sided decision turned round."""
    module, decisions = instrumented_module(subject.source, f"{subject.module.__name__}_decisions")
    if not decisions.lines:
        return GuardReport(guard=NAME, passed=True, reason="the block decides nothing")
    probe = _Probe(subject.with_module(module), decisions)
    with subject.in_double():
        one_sided = probe.one_sided()
        if len(one_sided) > _MOST_DECISIONS:
            return GuardReport(
                guard=NAME,
                passed=False,
                reason=f"{len(one_sided)} conditions come out one way in every ordinary call, and what is behind more "
                f"than {_MOST_DECISIONS} cannot be looked at; decide less",
                evidence={"one_sided": len(one_sided), "most": _MOST_DECISIONS},
            )
        for number, value in one_sided:
            report = probe.turn(number, value)
            if report is not None:
                return report
    reason = f"{len(one_sided)} of {len(decisions.lines)} decisions are one-sided; nothing leaks on their other side"
    return GuardReport(guard=NAME, passed=True, reason=reason, evidence={"decisions": len(decisions.lines)})


class _Probe:
    def __init__(self, subject: Subject, decisions: Decisions) -> None:
        self._subject = subject
        self._decisions = decisions
        self._size = subject.smallest

    def one_sided(self) -> list[tuple[int, bool]]:
        """Decisions that ordinary calls took to one side only, with the side they did not take."""
        size, sizes = self._size, (self._size, self._subject.sizes[-1])
        longest = 2 * size.seq_len + 3
        for index, (length, batch) in enumerate(((1, 2), (_SHORT, 3), (size.seq_len, 1), (longest, 2))):
            for train in (True, False):
                place = _Place(size=sizes[index % 2], length=length, batch=batch, train=train)
                self._call(self._layer(place), place)
        return [(number, True not in seen) for number, seen in sorted(self._decisions.seen.items()) if len(seen) == 1]

    def turn(self, number: int, value: bool) -> GuardReport | None:
        """Force one decision, and judge what that shows."""
        with self._decisions.forced(number, value):
            for place in (
                _Place(size=self._size, length=_SHORT, batch=3, train=True),
                _Place(size=self._size, length=_SHORT, batch=3, train=False, state="near"),
                _Place(size=self._size, length=2 * self._size.seq_len + 3, batch=2, train=True),
            ):
                leak = self._leak(place)
                if leak:
                    break
            else:
                return None
        reached = 0
        for place in self._ordinary_places():
            self._decisions.seen[number] = set()
            found = self._leak(place, only_if=(number, value))
            if found:
                return self._refusal(number, found, place, forced=False)
            reached += value in self._decisions.seen[number]
            if reached == _MOST_REACHED:
                return None
        return None if reached else self._refusal(number, leak, place, forced=True)

    def _ordinary_places(self) -> Iterator[_Place]:
        size = self._size
        base = _Place(size=size, length=_SHORT, batch=3, train=True)
        for train in (True, False):
            yield replace(base, train=train)
        for heads, width in _HEADS:
            other = replace(size, d_model=heads * width, n_heads=heads)
            yield replace(base, size=other)
        for batch in (1, 2, *range(4, 18), 32):
            yield replace(base, batch=batch)
        named = named_lengths(split_source(self._subject.source)[1])
        lengths = [*range(2, 2 * size.seq_len + 4), *named, 257, 520, 1031, 1]
        for length in dict.fromkeys(lengths):
            yield replace(base, length=length, batch=2, train=length % 2 == 0)

    def _layer(self, place: _Place) -> nn.Module:
        layer = self._subject.double_layer(place.size).train(place.train)
        move_parameters(layer, place.state, self._subject.generator("branches", place.state))
        return layer

    def _call(self, layer: nn.Module, place: _Place, *changes: str) -> list[Tensor]:
        """Outputs on a base input and, for each change, on one that differs in what comes later or in other rows."""
        generator = self._subject.generator("branches", place.length, place.batch)
        shape = (place.batch, place.length, place.size.d_model)
        x, other = (sequence_inputs("normalised", *shape, generator).to(self._subject.device) for _ in range(2))
        self._decisions.length = place.length
        outputs = []
        for change in ("nothing", *changes):
            given = x.clone()
            if change == "later":
                given[:, place.length // 2 :] = other[:, place.length // 2 :]
            elif change == "last":
                given[:, -1:] = other[:, -1:]
            elif change == "rows":
                given[1:] = other[1:]
            with torch.inference_mode(not place.train):
                found: Tensor = layer(given)
            outputs.append(found.detach())
        return outputs

    def _leak(self, place: _Place, only_if: tuple[int, bool] | None = None) -> float:
        """The relative size of a leak at a place, 0.0 for none; what fails there leaks nothing.

        With `only_if` the layer is compared only where that decision comes to that side by itself.
        """
        try:
            layer = self._layer(place)
            if only_if is not None:
                self._call(layer, place)
                if only_if[1] not in self._decisions.seen[only_if[0]]:
                    return 0.0
            base, later, last, rows = self._call(layer, place, "later", "last", "rows")
            half = place.length // 2
            moved = max(
                worst(later[:, :half] - base[:, :half]), worst(last[:, :-1] - base[:, :-1]), worst(rows[:1] - base[:1])
            )
        except FAILURES:
            return 0.0
        scale = worst(base)
        if scale == float("inf"):
            return 0.0
        return moved / max(scale, 1e-30) if moved > _LEAK * scale else 0.0

    def _refusal(self, number: int, leak: float, place: _Place, *, forced: bool) -> GuardReport:
        line = self._decisions.lines[number]
        where = (
            "and no length, batch or model size was found at which it is taken by itself"
            if forced
            else f"as at length {place.length}, batch {place.batch}, {place.size.name}, "
            f"{'train' if place.train else 'eval'} mode"
        )
        return GuardReport(
            guard=NAME,
            passed=False,
            reason=(
                f"line {line} of the block: when this condition comes out the other way, {where}, an output changes by "
                f"{leak:.2g} (relative) with a later position or another row of the batch; output t may depend on "
                "inputs 0..t of its own row only, under every condition"
            ),
            evidence={"line": line, "leak": leak, "length": place.length, "batch": place.batch, "forced": forced},
        )


def named_lengths(block: str, least: int = 3, most: int = 1024, count: int = 8) -> list[int]:
    """Lengths beside the whole numbers that a block's text names, smallest number first: c, c + 1, c - 1.

    Args:
        block: its text.
        least, most: numbers outside this range are left out.
        count: numbers at most; the rest are left out, largest last.
    """
    numbers = {
        node.value
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Constant) and type(node.value) is int and least <= node.value <= most
    }
    return [number + step for number in sorted(numbers)[:count] for step in (0, 1, -1)]

"""What mutations are written with: an architecture as a tree that may be changed, and a seeded choice.

A gene changes the tree in place and says whether it did; it answers False where its precondition is not met. Whether
the child is legal is decided afterwards by the schema, the one place that knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

Tree = dict[str, Any]
Generator = np.random.Generator
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One kind of change.

    Attributes:
        name: how reports call it.
        description: what it does, in one line.
        needs: its precondition, in words.
        apply: changes a tree in place; False where the precondition is not met.
    """

    name: str
    description: str
    needs: str
    apply: Callable[[Tree, Generator], bool]


def pick(rng: Generator, options: Sequence[T]) -> T:
    """One of `options`."""
    return options[int(rng.integers(len(options)))]


def other(rng: Generator, options: Sequence[T], present: T) -> T:
    """One of `options` that is not `present`."""
    return pick(rng, [option for option in options if option != present])


def scaled(rng: Generator, value: int, *, least: int = 1, most: int = 1 << 16) -> int:
    """`value` halved, doubled, or moved by about a quarter, within bounds and changed if the bounds allow it."""
    quarter = max(1, value // 4)
    options = {value // 2, value * 2, value - quarter, value + quarter}
    allowed = sorted(option for option in options if least <= option <= most and option != value)
    return pick(rng, allowed) if allowed else value


def transformers(tree: Tree) -> list[Tree]:
    """The transformer modules."""
    return [module for module in tree["arch"]["modules"].values() if module["kind"] == "transformer"]


def mixers(tree: Tree, *kinds: str) -> list[Tree]:
    """All mixers of these kinds, of every kind when none is given."""
    found = [mixer for module in transformers(tree) for mixer in mixers_of(module)]
    return [mixer for mixer in found if not kinds or mixer["kind"] in kinds]


def mixers_of(module: Tree) -> list[Tree]:
    """The mixers of one transformer module."""
    unit = module["mix_unit"]
    return [unit["mixer"]] if unit["kind"] == "single" else list(unit["mixers"])


def routers(tree: Tree) -> list[Tree]:
    """Every router there is."""
    found = []
    for module in transformers(tree):
        holders = [module["mix_unit"], module["ffn"] or {}, {"router": module["depth_router"]}]
        found += [holder["router"] for holder in holders if holder.get("router")]
    return found

"""Randomness from explicit generators, each made from a key that says what it is for.

Choices: a key is a sequence of strings and integers such as `("batch", seed, step)`; it is
written as canonical JSON, so `1` and `"1"` are different keys and `("a", "bc")` never meets
`("ab", "c")`; sha256 turns it into a seed, so neighbouring keys give unrelated streams.
Nothing here reads or changes the global random state of Python, numpy or torch.
"""

from __future__ import annotations

import hashlib
import json
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

Part = str | int | np.integer[Any]


def seed_of(*key: Part) -> int:
    """The seed that belongs to `key`: the first 63 bits of the sha256 of its canonical JSON.

    Args:
        key: at least one string or integer (a numpy integer counts as an integer).

    Raises:
        TypeError: a part is neither a string nor an integer; True and False are not integers here.
        ValueError: the key is empty.
    """
    if not key:
        raise ValueError("a random key needs at least one part, such as seed_of('batch', 0)")
    text = json.dumps([_part(part) for part in key], separators=(",", ":"), ensure_ascii=True)
    return int.from_bytes(hashlib.sha256(text.encode("ascii")).digest()[:8], "big") >> 1


def numpy_generator(*key: Part) -> np.random.Generator:
    """A numpy generator (PCG64) seeded by `key`; raises as `seed_of` does."""
    return np.random.Generator(np.random.PCG64(seed_of(*key)))


def torch_generator(*key: Part) -> torch.Generator:
    """A torch generator on the CPU seeded by `key`; raises as `seed_of` does."""
    import torch

    return torch.Generator().manual_seed(seed_of(*key))


def _part(part: object) -> str | int:
    if isinstance(part, str):
        return part
    if not isinstance(part, (bool, np.bool_)):
        try:
            return operator.index(part)  # type: ignore[arg-type]  # the TypeError is the check
        except TypeError:
            pass
    raise TypeError(f"a random key holds strings and integers, not {part!r} ({type(part).__name__})")

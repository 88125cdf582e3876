"""Payloads as canonical JSON, and the digest that chains events together.

Canonical means: sorted keys, no white space, ASCII only (so that any reply of a proposer,
lone surrogates and NUL included, survives SQLite), no NaN and no infinity. One value has one
text, which is what makes digests and plan hashes comparable.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from evolution.ledger.errors import PayloadError


def plain(value: Any) -> Any:
    """A pydantic model as its JSON form; anything else as it is."""
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if callable(dump) else value


def _first_fault(value: Any, where: str) -> str | None:
    """What is not JSON in `value`, with the path to it; None when all of it is."""
    if value is None or isinstance(value, str | bool | int):
        return None
    if isinstance(value, float):
        return (
            None if math.isfinite(value) else f"{where} is {value}; numbers must be finite (leave out what is unknown)"
        )
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                return f"{where} has the key {key!r} of type {type(key).__name__}; keys are strings"
            fault = _first_fault(item, f"{where}.{key}")
            if fault:
                return fault
        return None
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            fault = _first_fault(item, f"{where}[{index}]")
            if fault:
                return fault
        return None
    return f"{where} is a {type(value).__name__}; only None, bool, int, float, str, list and dict are recorded"


def canonical_json(payload: Mapping[str, Any], where: str = "payload") -> str:
    """`payload` as canonical JSON.

    Raises:
        PayloadError: something in it is not plain JSON; the message holds the path to it.
    """
    if not isinstance(payload, Mapping):
        raise PayloadError(f"{where} is a {type(payload).__name__}; an event's content is a dict")
    try:
        fault = _first_fault(payload, where)
        if fault:
            raise PayloadError(fault)
        return json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except RecursionError:
        raise PayloadError(f"{where} nests too deep or holds itself; at most a few hundred levels") from None


def event_digest(previous: str | None, seq: int, time: float, kind: str, key: str | None, payload: str) -> str:
    """sha256 hex over the previous event's digest and everything in this one."""
    text = json.dumps([previous, seq, repr(time), kind, key, payload])
    return hashlib.sha256(text.encode()).hexdigest()

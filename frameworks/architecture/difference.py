"""The difference between two architectures, in words."""

from __future__ import annotations

from typing import Any

from frameworks.architecture.document import tree_of
from frameworks.architecture.schema import Architecture


def differences(before: Architecture, after: Architecture) -> list[str]:
    """One line for each place that differs, such as `arch.modules.trunk.n_layers: 2 became 3`; names of files aside."""
    lines: list[str] = []
    old, new = tree_of(before), tree_of(after)
    for key in ("arch", "train"):
        _compare(key, old[key], new[key], lines)
    return lines


def _compare(place: str, old: Any, new: Any, lines: list[str]) -> None:
    if isinstance(old, dict) and isinstance(new, dict) and old.get("kind") == new.get("kind"):
        for key in dict.fromkeys([*old, *new]):
            if key not in new:
                lines.append(f"{place}.{key} is gone")
            elif key not in old:
                lines.append(f"{place}.{key} is new: {_said(new[key])}")
            else:
                _compare(f"{place}.{key}", old[key], new[key], lines)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and isinstance((old or [0])[0], dict):
        for index, (left, right) in enumerate(zip(old, new, strict=True)):
            label = left.get("name", index) if isinstance(left, dict) else index
            _compare(f"{place}.{label}", left, right, lines)
    elif old != new:
        lines.append(f"{place}: {_said(old)} became {_said(new)}")


def _said(value: Any) -> str:
    if isinstance(value, dict):
        kind = value.get("kind")
        rest = ", ".join(f"{key} {_said(item)}" for key, item in value.items() if key != "kind" and item is not None)
        return f"{kind} ({rest})" if kind and rest else str(kind or f"({rest})")
    if isinstance(value, list):
        return "[" + ", ".join(_said(item) for item in value) + "]"
    return "none" if value is None else str(value)

from __future__ import annotations

import math

import pytest

from evolution.sandbox import Limits


def test_defaults_are_legal_and_frozen():
    limits = Limits()
    assert limits.cpu_seconds is None
    with pytest.raises(AttributeError):
        limits.seconds = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seconds", 0),
        ("seconds", -1.0),
        ("seconds", math.inf),
        ("seconds", math.nan),
        ("seconds", None),
        ("seconds", "3"),
        ("seconds", True),
        ("cpu_seconds", 0.0),
        ("memory_bytes", 0),
        ("memory_bytes", 1e9),
        ("file_bytes", -5),
        ("processes", 0),
        ("processes", 1.5),
    ],
)
def test_a_limit_that_limits_nothing_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"Limits\.{name} is .* above 0"):
        Limits(**{name: value})

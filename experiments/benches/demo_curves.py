"""The shipped table of real learning curves of the demo ladder, made by `evoscale curves`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.learning_curves import CurveTable

DEMO_CURVES = Path(__file__).with_name("demo_curves.csv.gz")
COMMAND = "evoscale curves coefficient_dynamics --ladder demo --limit 32 --skip null_dynamics --out"


def missing() -> str | None:
    """Why there is no table, with the command that makes it; None when there is one."""
    if DEMO_CURVES.exists():
        return None
    return f"no table of curves; make it with: {COMMAND} {DEMO_CURVES.parent.parent.name}/benches/{DEMO_CURVES.name}"


@cache
def demo_curves() -> CurveTable:
    """The table.

    Raises:
        CurveTableError: it is damaged.
        OSError: it cannot be read; see `missing`.
    """
    from analysis.learning_curves import read_curves

    return read_curves(DEMO_CURVES)

"""Killed at twenty points and started again, a sweep ends in the same table, and nothing is trained twice.

The ledger, the schedule and the sweep are the real ones; only the training of a stretch is replaced by a known curve.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from data.keyed_random import numpy_generator
from evolution.architecture_search.measuring import StretchMeasurement
from evolution.architecture_search.settings import SearchSettings
from evolution.architecture_search.sweep import sweep
from evolution.architecture_search.table import Row
from evolution.ledger import Ledger
from frameworks.architecture.document import architecture_from, tree_of
from frameworks.architecture.preset import preset
from frameworks.architecture.schema import Architecture
from training.architecture_spec import StretchSpec
from training.architecture_trainer import Trained
from training.outcome import Diverged, Outcome

SETTINGS = SearchSettings(seq_len=16, asha_min_steps=2, asha_max_steps=18, pdh_steps=5, deep_steps=30, workers=1)


class Killed(Exception):  # noqa: N818
    """Stands for kill -9."""


class Known(StretchMeasurement):
    """Trains along known curves; dies before the training number `fatal`."""

    def __init__(self, ledger: Ledger, counted: Counter[str], fatal: int | None) -> None:
        corpus: Any = SimpleNamespace(vocab_size=300, hash="c", tokenizer_hash="t")
        sandbox: Any = SimpleNamespace(cancel_all=lambda: 0)
        super().__init__(ledger=ledger, sandbox=sandbox, corpus=corpus, directory=Path("none"), settings=SETTINGS)
        self.counted, self.fatal, self.done = counted, fatal, 0

    def _train(self, architecture: Architecture, spec: StretchSpec) -> Outcome:
        if self.done == self.fatal:
            raise Killed
        self.done += 1
        self.counted[spec.key] += 1
        rate, floor = numpy_generator("curve", architecture.name).random(2)
        if architecture.name in ("m3", "m7"):
            return Diverged(step=1, reason="drawn so")
        loss = 2.0 + float(floor) + 3.0 * spec.stop_at ** -(0.2 + float(rate))
        return Trained(
            val_loss=loss,
            curve=[(spec.stop_at, loss, loss)],
            n_parameters=1,
            tokens=1,
            flops=1,
            cpu_seconds=0.0,
            seconds=1.0,
            peak_memory_bytes=0,
            first_loss=6.0,
            accuracy=0.5,
            ece=0.1,
        )


@pytest.fixture(scope="module")
def members() -> list[Architecture]:
    found = []
    for number in range(12):
        tree = tree_of(preset("llama_like")) | {"name": f"m{number}"}
        tree["arch"]["modules"]["trunk"]["ffn"]["d_ff"] = 16 + number
        found.append(architecture_from(tree))
    return found


def swept(folder: Path, members: list[Architecture], counted: Counter[str], fatal: int | None) -> list[Row]:
    folder.mkdir(exist_ok=True)
    with Ledger.open(folder / "ledger.sqlite", create=True) as ledger:
        measurement = Known(ledger, counted, fatal)
        try:
            return sweep(cast(StretchMeasurement, measurement), members)
        finally:
            measurement.close()


def test_killed_at_twenty_points(tmp_path: Path, members: list[Architecture]) -> None:
    counted: Counter[str] = Counter()
    expected = swept(tmp_path / "whole", members, counted, None)
    total = sum(counted.values())
    assert {row.status for row in expected} == {"completed", "diverged"}
    assert total == len(counted) >= 20
    points = numpy_generator("kill points").permutation(total)[:20]
    for point in points:
        again: Counter[str] = Counter()
        with pytest.raises(Killed):
            swept(tmp_path / f"at_{point}", members, again, int(point))
        assert swept(tmp_path / f"at_{point}", members, again, None) == expected
        assert again == counted

"""A fresh ledger, and the specs, outcomes and plans the tests write into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evolution.ledger import Ledger

Json = dict[str, Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path) as opened:
        yield opened


@pytest.fixture
def make_spec() -> Callable[..., Json]:
    def make(candidate: str = "a", seed: int = 0, purpose: str = "search", size: str = "d32", **more: Any) -> Json:
        split = "confirmation_test" if purpose == "confirmation" else "search_validation"
        return {
            "candidate": candidate,
            "seed": seed,
            "purpose": purpose,
            "size": size,
            "eval_split": split,
            "corpus_hash": "c0ffee",
            "tokenizer_hash": "7ea",
            **more,
        }

    return make


@pytest.fixture
def make_plan() -> Callable[..., Json]:
    def make(**more: Any) -> Json:
        plan = {"reference": "ref", "shortlist": ["a", "b"], "seeds": [20_000, 20_001], "sizes": ["d32", "d48"]}
        return {**plan, **more}

    return make


@pytest.fixture
def done() -> Json:
    return {"status": "completed", "val_loss": 3.5, "curve": [[100, 3.6, 3.5]], "seconds": 1.0}

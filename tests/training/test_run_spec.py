from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from pydantic import ValidationError

from training.run_spec import RunSpec, seed_for, seed_range, split_for

PURPOSES = ("search", "tuning", "confirmation")
FIELDS: dict[str, Any] = {
    "candidate": "abc",
    "framework": "matrix_mixer",
    "size": "d32",
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 2,
    "vocab_size": 512,
    "seq_len": 64,
    "batch_size": 8,
    "steps": 800,
    "learning_rate": 1e-2,
    "seed": 1,
    "purpose": "search",
    "eval_split": "search_validation",
    "eval_every": 200,
    "eval_tokens": 1024,
    "corpus_hash": "c",
    "tokenizer_hash": "t",
}
OTHER: dict[str, Any] = {
    "candidate": "abd",
    "framework": "test_time_regression",
    "size": "d48",
    "d_model": 48,
    "n_layers": 3,
    "n_heads": 4,
    "vocab_size": 513,
    "seq_len": 65,
    "batch_size": 9,
    "steps": 801,
    "learning_rate": 2e-2,
    "warmup_fraction": 0.2,
    "execution": "compiled",
    "schedule": "constant",
    "final_lr_fraction": 0.2,
    "weight_decay": 0.1,
    "beta1": 0.8,
    "beta2": 0.99,
    "clip": 0.5,
    "seed": 2,
    "eval_every": 100,
    "eval_tokens": 2048,
    "corpus_hash": "d",
    "tokenizer_hash": "u",
    "precision": "bf16",
    "device_kind": "cuda",
    "harness_version": "0",
}


def test_every_field_is_part_of_the_key() -> None:
    assert set(OTHER) | {"purpose", "eval_split"} == set(RunSpec.model_fields)
    base = RunSpec(**FIELDS)
    keys = {base.key} | {RunSpec(**{**FIELDS, name: value}).key for name, value in OTHER.items()}
    confirmation = {"purpose": "confirmation", "eval_split": "confirmation_test", "seed": 20_000}
    tuning = {"purpose": "tuning", "seed": 10_000}
    keys |= {RunSpec(**{**FIELDS, **change}).key for change in (confirmation, tuning)}
    assert len(keys) == len(OTHER) + 3


def test_key_is_the_sha256_of_sorted_json_and_survives_a_round_trip() -> None:
    spec = RunSpec(**FIELDS)
    text = spec.canonical_json()
    assert list(json.loads(text)) == sorted(set(RunSpec.model_fields) - {"execution"})  # `eager` is left out
    assert list(json.loads(RunSpec(**FIELDS, execution="compiled").canonical_json())) == sorted(RunSpec.model_fields)
    assert spec.key == hashlib.sha256(text.encode()).hexdigest()
    assert RunSpec(**dict(reversed(FIELDS.items()))).key == spec.key
    assert RunSpec.model_validate(json.loads(text)).key == spec.key


def test_frozen_and_closed() -> None:
    spec = RunSpec(**FIELDS)
    with pytest.raises(ValidationError):
        spec.seed = 2  # type: ignore[misc]
    with pytest.raises(ValueError, match="lr"):
        RunSpec(**FIELDS, lr=1)


def test_seed_ranges_are_disjoint() -> None:
    ranges = [seed_range(purpose) for purpose in PURPOSES]
    assert [(r.start, r.stop) for r in ranges[:2]] == [(0, 10_000), (10_000, 20_000)]
    assert ranges[2].start == 20_000
    for position, one in enumerate(ranges):
        for other in ranges[position + 1 :]:
            assert one.stop <= other.start


@pytest.mark.parametrize(("purpose", "expected"), [("search", 42), ("tuning", 10_042), ("confirmation", 20_042)])
def test_a_users_seed_is_an_offset(purpose: str, expected: int) -> None:
    assert seed_for(purpose, 42) == expected


@pytest.mark.parametrize("offset", [-1, 10_000])
def test_a_seed_outside_its_range_is_refused(offset: int) -> None:
    with pytest.raises(ValueError, match=rf"seed {offset} is outside 0\.\.9999"):
        seed_for("search", offset)


@pytest.mark.parametrize("call", [seed_range, split_for])
def test_an_unknown_purpose_lists_the_known(call: Any) -> None:
    with pytest.raises(ValueError, match="'final' is unknown; allowed: search, tuning, confirmation"):
        call("final")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 20_000}, "seed 20000 does not belong to purpose 'search'"),
        ({"seed": 9_999, "purpose": "tuning"}, "whose seeds are 10000..19999"),
        ({"purpose": "confirmation", "eval_split": "confirmation_test"}, "seed 1 does not belong"),
        ({"purpose": "confirmation", "seed": 20_000}, "evaluated on 'confirmation_test'"),
        ({"eval_split": "confirmation_test"}, "'confirmation_test' does not belong to purpose 'search'"),
        ({"n_heads": 5}, "n_heads=5 does not divide d_model=32"),
        ({"eval_tokens": 63}, "eval_tokens=63 holds no window of seq_len=64"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"steps": 0}, "steps"),
    ],
)
def test_what_does_not_fit_is_a_value_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunSpec(**{**FIELDS, **changes})


def test_counts_and_differences() -> None:
    spec = RunSpec(**FIELDS)
    assert spec.tokens == 800 * 8 * 64
    assert spec.warmup_steps == 80
    other = RunSpec(**{**FIELDS, "seed": 5, "clip": 0.0})
    assert spec.differences(other) == {"seed": (1, 5), "clip": (1.0, 0.0)}

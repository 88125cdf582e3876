"""Stages, confirmation sizes and the RunSpecs that follow from them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from evolution.config import ConfigError, EvolveConfig, load_config
from evolution.stages import RunFactory, confirmation_sizes, resolve_stages
from training.ladder import ladder
from training.run_spec import seed_range


def config(**changes: Any) -> EvolveConfig:
    return load_config(None, None, {"framework": "matrix_mixer", **changes})


def factory(seed: int) -> RunFactory:
    corpus = SimpleNamespace(vocab_size=512, hash="c" * 64, tokenizer_hash="t" * 64)
    return RunFactory(config(seed=seed), ladder("demo"), corpus, "fp32", "cpu")  # type: ignore[arg-type]


def test_the_ladders_own_stages_are_the_default() -> None:
    stages = resolve_stages(config(), ladder("demo"))
    assert [(stage.size, stage.seeds, stage.keep) for stage in stages] == [
        ("d32", 2, None),
        ("d48", 2, 6),
        ("d80", 2, 3),
    ]
    assert [stage.in_loop for stage in stages] == [True, False, False]


def test_confirmation_covers_every_size_and_the_unseen_one() -> None:
    assert confirmation_sizes(config(), ladder("demo")) == ("d32", "d48", "d80")
    assert confirmation_sizes(config(), ladder("laptop"))[-1] == "d160"
    assert confirmation_sizes(config(**{"confirmation.sizes": ["d48"]}), ladder("demo")) == ("d48",)


@pytest.mark.parametrize("sizes", [[], ["d32", "d32"]])
def test_confirmation_sizes_are_named_once(sizes: list[str]) -> None:
    with pytest.raises(ConfigError, match="each once"):
        confirmation_sizes(config(**{"confirmation.sizes": sizes}), ladder("demo"))


def test_search_and_confirmation_never_share_a_seed_or_split() -> None:
    stage = resolve_stages(config(), ladder("demo"))[0]
    for seed in (0, 1, 7, 99, 12345):
        runs = factory(seed)
        search = [runs.search("a", stage, index) for index in range(6)]
        confirmation = [runs.confirmation("a", "d80", fresh) for fresh in runs.confirmation_seeds()]
        assert {spec.eval_split for spec in search} == {"search_validation"}
        assert {spec.eval_split for spec in confirmation} == {"confirmation_test"}
        assert all(spec.seed in seed_range("search") for spec in search)
        assert all(spec.seed in seed_range("confirmation") for spec in confirmation)


def test_runs_with_other_seeds_share_none() -> None:
    assert not set(factory(1).confirmation_seeds()) & set(factory(2).confirmation_seeds())


def test_arms_differ_in_the_candidate_only() -> None:
    stage = resolve_stages(config(), ladder("demo"))[0]
    runs = factory(1)
    assert set(runs.search("a", stage, 0).differences(runs.search("b", stage, 0))) == {"candidate"}

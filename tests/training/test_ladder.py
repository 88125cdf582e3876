from __future__ import annotations

from typing import Any

import pytest

from models.language_model import create_language_model
from training.flops import forward_flops
from training.ladder import Ladder, Size, Stage, UnknownNameError, ladder, ladder_names

HASHES = {"corpus_hash": "c", "tokenizer_hash": "t"}


def _built(size: Size, vocab_size: int = 32) -> int:
    model = create_language_model(
        "matrix_mixer", vocab_size=vocab_size, d_model=size.d_model, n_layers=size.n_layers, n_heads=size.n_heads
    )
    return model.n_parameters()


def test_demo_sizes_are_the_measured_ones() -> None:
    demo = ladder("demo")
    rows = [
        (_built(s), s.steps, s.learning_rate, s.n_layers, s.d_model // s.n_heads, s.seq_len, s.batch_size)
        for s in demo.sizes
    ]
    assert rows == [
        (24_896, 800, 1e-2, 2, 16, 64, 8),
        (55_776, 400, 8e-3, 2, 16, 64, 8),
        (154_400, 400, 5e-3, 2, 16, 64, 8),
    ]
    assert (demo.vocab_size, demo.corpus, demo.weight_decay, demo.clip) == (512, "stdlib", 0.0, 1.0)
    assert (demo.warmup_fraction, demo.final_lr_fraction) == (0.1, 0.1)


@pytest.mark.parametrize(("name", "millions"), [("0.5M", 0.5), ("1M", 1), ("2M", 2), ("4M", 4), ("8M", 8)])
def test_paper_sizes_are_within_five_percent(name: str, millions: float) -> None:
    paper = ladder("paper")
    size = paper.size(name)
    assert abs(_built(size) / (millions * 1e6) - 1) < 0.05
    assert (size.steps, size.seq_len, paper.vocab_size, paper.corpus) == (100_000, 128, 16_384, "tinystories")


def test_paper_keeps_its_largest_size_unseen() -> None:
    paper = ladder("paper")
    assert [size.name for size in paper.sizes] == ["0.5M", "1M", "2M", "4M"]
    assert paper.unseen is not None
    assert paper.unseen.name == "8M"


@pytest.mark.parametrize("name", ladder_names())
def test_sizes_state_the_parameters_that_are_built(name: str) -> None:
    for size in ladder(name).all_sizes:
        assert size.n_parameters == _built(size)


@pytest.mark.parametrize("name", ["demo", "laptop", "paper"])
def test_evaluation_costs_at_most_a_twentieth_of_the_training(name: str) -> None:
    for size in ladder(name).all_sizes:
        evaluations = -(-size.steps // size.eval_every)
        forward_only = evaluations * size.eval_tokens / 3
        assert forward_only <= 0.05 * size.steps * size.batch_size * size.seq_len


def test_laptop_search_of_35_candidates_is_a_matter_of_two_hours() -> None:
    laptop = ladder("laptop")
    flops = 0.0
    for stage in laptop.stages:
        size = laptop.size(stage.size)
        forward = forward_flops(
            d_model=size.d_model, n_layers=size.n_layers, vocab_size=laptop.vocab_size, seq_len=size.seq_len
        )
        candidates = 35 if stage.keep is None else stage.keep
        flops += candidates * stage.seeds * 3 * forward * size.steps * size.batch_size
    # A core that does no more than 20 GFLOP/s at these sizes has four core-hours in two hours on two cores.
    assert flops / 20e9 < 0.75 * 4 * 3600
    assert laptop.unseen is not None
    assert laptop.unseen.n_parameters > laptop.sizes[-1].n_parameters


def test_ladder_names_are_those_of_the_ladders() -> None:
    assert [ladder(name).name for name in ladder_names()] == ladder_names()
    assert ladder_names()[-3:] == ["demo", "laptop", "paper"]


@pytest.mark.parametrize(("wrong", "near"), [("papers", "paper"), ("labtop", "laptop"), ("Demo", "demo")])
def test_an_unknown_ladder_gets_the_near_match(wrong: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown ladder '{wrong}'; did you mean '{near}'.*demo, laptop, paper"):
        ladder(wrong)


def test_an_unknown_size_gets_the_near_match() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown size of ladder 'demo' 'd23'; did you mean 'd32'.*d32, d48, d80"
    ):
        ladder("demo").size("d23")


def test_run_spec_takes_the_sizes_settings() -> None:
    spec = ladder("demo").run_spec("d48", candidate="x", framework="matrix_mixer", seed=1, purpose="search", **HASHES)
    assert (spec.d_model, spec.steps, spec.learning_rate, spec.vocab_size, spec.size) == (48, 400, 8e-3, 512, "d48")
    assert (spec.eval_split, spec.eval_every) == ("search_validation", 200)


def test_run_spec_changes_and_purpose() -> None:
    spec = ladder("demo").run_spec(
        "d32",
        candidate="x",
        framework="matrix_mixer",
        seed=20_001,
        purpose="confirmation",
        steps=100,
        learning_rate=3e-3,
        **HASHES,
    )
    assert (spec.eval_split, spec.steps, spec.learning_rate, spec.eval_every) == ("confirmation_test", 100, 3e-3, 25)
    with pytest.raises(ValueError, match="seed 1 does not belong"):
        ladder("demo").run_spec("d32", candidate="x", framework="m", seed=1, purpose="confirmation", **HASHES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": (Stage(size="d64", seeds=1),)}, "stage size 'd64' is not one of d32, d48, d80"),
        ({"sizes": ladder("demo").sizes[::-1]}, "sizes must grow"),
        ({"unseen": ladder("demo").sizes[2]}, "share a name"),
    ],
)
def test_a_ladder_that_does_not_hold_together(changes: dict[str, Any], message: str) -> None:
    fields = {name: getattr(ladder("demo"), name) for name in Ladder.model_fields}
    with pytest.raises(ValueError, match=message):
        Ladder(**{**fields, **changes})


def test_a_validation_has_a_size_above_the_ladders_largest() -> None:
    assert ladder("laptop").with_unseen() is ladder("laptop")
    demo = ladder("demo")
    extended = demo.with_unseen()
    assert extended.sizes == demo.sizes
    assert extended.unseen is not None
    assert (extended.unseen.name, extended.unseen.n_heads, extended.unseen.steps) == ("d112", 7, 400)
    assert extended.unseen.d_model == 112
    assert 3e-3 < extended.unseen.learning_rate < 5e-3
    assert ladder("demo").unseen is None  # the search's ladder costs what it did

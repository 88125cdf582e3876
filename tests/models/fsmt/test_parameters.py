"""Counts, and what evolves."""

from __future__ import annotations

import pytest
from torch import nn

from models.fsmt.configuration import SPECIFIED, FsmtShape
from models.fsmt.error import TranslationError
from models.fsmt.parameters import analyse, matrices, meta_model, select


def test_the_specified_model_is_counted_not_estimated() -> None:
    found = analyse(meta_model(SPECIFIED), ["model.encoder.*.fc?.weight"])
    assert found["total"] == 177_361_920
    assert found["modes"]["lora"]["matrices"] == 48
    assert found["modes"]["lora"]["evolved"] == 50_331_648
    assert found["modes"]["patterns"]["evolved"] == 67_108_864 == found["parts"]["encoder feed_forward"]
    assert sum(found["parts"].values()) == found["total"]
    assert all(row["evolved"] + row["frozen"] == found["total"] for row in found["modes"].values())
    assert found["modes"]["lora"]["low_rank_noise_bytes"] < 100e6
    untied = SPECIFIED.model_copy(update={"tie_word_embeddings": False})
    assert analyse(meta_model(untied))["total"] == 261_254_144


def test_a_tied_table_is_one_matrix_with_three_uses(model: nn.Module, untied: nn.Module) -> None:
    (table,) = [matrix for matrix in matrices(model) if matrix.part == "table"]
    assert [use.kind for use in table.uses] == ["embedding", "embedding", "linear"]
    assert table.stack == "both"
    assert table.shape == (101, 36)
    assert [len(matrix.uses) for matrix in matrices(untied) if matrix.part == "table"] == [1, 1, 1]


def test_selection(model: nn.Module) -> None:
    attention = select(model, "lora")
    assert len(attention) == 4 * 2 + 8 * 2
    assert {matrix.part for matrix in attention} == {"attention"}
    assert len(select(model, "full")) == len(attention) + 2 * 4 + 1
    only = select(model, "lora", ["model.decoder.layers.1.fc1.weight", "*.encoder_attn.q_proj.weight"])
    assert [matrix.name.split(".", 2)[2] for matrix in only] == [
        "layers.0.encoder_attn.q_proj.weight",
        "layers.1.encoder_attn.q_proj.weight",
        "layers.1.fc1.weight",
    ]


@pytest.mark.parametrize(
    ("mode", "patterns", "message"),
    [
        ("lora", ["*.q_prj.weight"], "matches none of the .* matrices, so it leaves everything frozen"),
        ("lora", [], "every parameter is frozen"),
        ("lra", None, "unknown mode 'lra'; did you mean 'lora'"),
    ],
)
def test_a_selection_that_is_none(model: nn.Module, mode: str, patterns: list[str] | None, message: str) -> None:
    with pytest.raises(TranslationError, match=message):
        select(model, mode, patterns)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match=r"n_heads 5 does not divide d_model 12; allowed: \[1, 2, 3, 4, 6, 12\]"):
        FsmtShape(d_model=12, n_heads=5)

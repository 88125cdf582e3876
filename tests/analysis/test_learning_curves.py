"""The table of learning curves: it survives its file, its bytes depend on the content alone, and holes are errors."""

from __future__ import annotations

import dataclasses
import gzip
import math
from pathlib import Path

import numpy as np
import pytest

from analysis.learning_curves import CurveTable, CurveTableError, read_curves, write_curves
from tests.analysis.curve_tables import made_up_table


def test_a_table_survives_its_file_and_gives_the_same_bytes_again(tmp_path: Path) -> None:
    table = made_up_table(5)
    write_curves(table, tmp_path / "a.csv.gz")
    back = read_curves(tmp_path / "a.csv.gz")
    assert (back.candidates, back.seeds, list(back.sizes)) == (table.candidates, table.seeds, list(table.sizes))
    for name, curves in table.sizes.items():
        assert np.abs(back.sizes[name].losses - curves.losses).max() < 6e-6
        assert back.sizes[name].tokens == curves.tokens
    write_curves(back, tmp_path / "b.csv.gz")
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    assert not list(tmp_path.glob("*.part"))


def test_tokens_count_every_arm_size_and_seed() -> None:
    assert made_up_table(3, 2).full_tokens == 4 * 2 * 512 * (800 + 400 + 400)


def _rewritten(path: Path, old: str, new: str) -> Path:
    text = gzip.decompress(path.read_bytes()).decode()
    assert old in text
    path.write_bytes(gzip.compress(text.replace(old, new, 1).encode()))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("c01,d48,101,200,", "c01,d48,101,2000000,", "no loss at size d48"),
        ("c01,d48,101,200,", "c01,d48,101,100,", "stands there twice"),
        ("c02,d32,100,100,", "c02,d32,100,x,", "invalid literal"),
        ('"candidates"', '"names"', "no table of learning curves"),
    ],
)
def test_a_damaged_file_is_refused_with_the_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    write_curves(made_up_table(4), tmp_path / "t.csv.gz")
    with pytest.raises(CurveTableError, match=message):
        read_curves(_rewritten(tmp_path / "t.csv.gz", old, new))


def test_what_is_no_gzip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_text("candidate,size\n")
    with pytest.raises(CurveTableError, match="no table of learning curves"):
        read_curves(tmp_path / "t.csv.gz")


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    table = made_up_table(3)
    losses = table.sizes["d48"].losses.copy()
    losses[2, 1, 0] = math.nan
    with pytest.raises(CurveTableError, match="'c01', seed 101, step 100"):
        dataclasses.replace(table, sizes={**table.sizes, "d48": dataclasses.replace(table.sizes["d48"], losses=losses)})


def test_names_must_differ() -> None:
    table = made_up_table(3)
    with pytest.raises(CurveTableError, match="each once"):
        CurveTable(candidates=("a", "a", "b", "c"), seeds=table.seeds, sizes=table.sizes, provenance={})

"""Sentence pairs: the embedded set, folders, tables, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from data.corpus_error import CorpusError
from data.transduction import Transduction
from data.translation import load_translation

MULTI30K = Path(__file__).parents[2].parent / "shared" / "data" / "multi30k"


def _folder(tmp_path: Path, **files: str) -> str:
    for name, text in files.items():
        (tmp_path / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return str(tmp_path)


def test_the_embedded_set_is_the_same_every_time_and_its_splits_share_nothing() -> None:
    data = load_translation("embedded", "en", "de", max_train=2000)
    again = load_translation("embedded", "en", "de", max_train=2000)
    assert data == again
    assert data.hash() == again.hash()
    assert (len(data.train), len(data.validation), len(data.test)) == (2000, 500, 1000)
    parts = [set(split.sources) for split in (data.train, data.validation, data.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 3500


def test_the_embedded_language_moves_verbs_and_declines() -> None:
    pairs = list(Transduction(seed=0, n_pairs=3000).pairs())
    fronted = [german for english, german in pairs if english.startswith("Today,")]
    assert fronted
    assert all(text.startswith("Heute ") and text.split()[1].islower() for text in fronted)  # verb second
    modal = [german for english, german in pairs if " must " in english and "because" not in english]
    assert any(text.rstrip(".").endswith("en") for text in modal)
    assert any(" den " in german for _, german in pairs)  # accusative
    assert any(" dem " in german for _, german in pairs)  # dative


def test_a_folder_may_mix_plain_and_compressed_text(tmp_path: Path) -> None:
    folder = _folder(
        tmp_path, train_en="a b\nc\n", train_de="x\ny z\n", val_en="v\n", val_de="w\n", test_en="t\n", test_de="u\n"
    )
    (tmp_path / "train.de").unlink()
    with gzip.open(tmp_path / "train.de.gz", "wt", encoding="utf-8") as file:
        file.write("x\ny ü\n")
    data = load_translation(folder, "en", "de")
    assert data.train.targets == ("x", "y ü")
    assert load_translation(folder, "de", "en").train.sources == ("x", "y ü")


def test_multi30k_when_it_is_there() -> None:
    if not MULTI30K.is_dir():
        pytest.skip("../shared/data/multi30k is not there")
    data = load_translation(str(MULTI30K), "en", "de", files=["train", "val", "test_2016_flickr"])
    assert (len(data.train), len(data.validation), len(data.test)) == (29_000, 1014, 1000)


def test_a_table_is_split_by_its_sources(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"source {n}\ttarget {n}\n" for n in range(200)))
    data = load_translation(str(path), "en", "de")
    assert len(data.train) + len(data.validation) + len(data.test) == 200
    assert len(data.train) > 150
    path.write_text("one\ttwo\tthree\n")
    with pytest.raises(CorpusError, match="line 1: 3 fields; expected source, tab, target"):
        load_translation(str(path), "en", "de")


FINE = {"val_en": "v\n", "val_de": "w\n", "test_en": "t\n", "test_de": "u\n"}


@pytest.mark.parametrize(
    ("files", "langs", "message"),
    [
        ({"train_en": "a\nb\n", "train_de": "x\n"}, ("en", "de"), "train.en has 2 lines and train.de 1"),
        (
            {"train_en": "a\nb\n", "train_de": "x\n \n"},
            ("en", "de"),
            "1 of 2 reference sentences are empty, .* line 2",
        ),
        ({"train_en": "a\n\n", "train_de": "x\ny\n"}, ("en", "de"), "1 of 2 source sentences are empty"),
        ({"train_en": "", "train_de": ""}, ("en", "de"), "no sentences"),
        ({"train_en": "a\n", "train_de": "x\n"}, ("en", "fr"), "has no train.fr.*'train' is there in de, en"),
        ({"trian_en": "a\n", "trian_de": "x\n"}, ("en", "de"), "has no train.en.*did you mean 'trian'"),
        ({"train_en": "a\n", "train_de": "x\n"}, ("en", "en"), "are both 'en'; they must differ"),
    ],
)
def test_what_a_folder_is_refused_for(
    tmp_path: Path, files: dict[str, str], langs: tuple[str, str], message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        load_translation(_folder(tmp_path, **FINE, **files), *langs)


def test_unknown_sets_and_pairs(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="unknown translation set 'wmt41'; did you mean 'wmt1"):
        load_translation("wmt41", "en", "de")
    with pytest.raises(CorpusError, match="the embedded set is en-de; en-fr was asked for"):
        load_translation("embedded", "en", "fr")
    with pytest.raises(CorpusError, match="no such file"):
        load_translation(str(tmp_path / "absent.tsv"), "en", "de")
    (tmp_path / "broken.tsv.gz").write_bytes(b"not gzip")
    with pytest.raises(CorpusError, match="cannot be read"):
        load_translation(str(tmp_path / "broken.tsv.gz"), "en", "de")

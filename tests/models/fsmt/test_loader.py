"""Models and tokenizers from files that we make, and files that must be refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from models.fsmt.error import TranslationError
from models.fsmt.loader import Translator, load_fsmt
from models.fsmt.tokenizer import FILES, build_tokenizer, encode_targets

SOURCES = ["The old man sees a dog.", "Today, a girl buys the red book near the town."]
TARGETS = ["Der alte Mann sieht einen Hund.", "Heute kauft ein Mädchen das rote Buch bei der Stadt."]


@pytest.fixture
def saved(model: nn.Module, tmp_path: Path) -> Path:
    tokenizer = build_tokenizer(SOURCES, TARGETS, ("en", "de"), 101)
    Translator(model=model, tokenizer=tokenizer, name="test").save(tmp_path / "model")
    return tmp_path / "model"


def _edit(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_save_and_load_is_the_identity(model: nn.Module, saved: Path) -> None:
    found = load_fsmt(str(saved))
    assert found.langs == ("en", "de")
    assert not found.model.training
    for (name, before), (_, after) in zip(model.named_parameters(), found.model.named_parameters(), strict=True):
        assert torch.equal(before, after), name
    output = found.model.model.decoder.output_projection.weight
    assert output.data_ptr() == found.model.model.encoder.embed_tokens.weight.data_ptr()


def test_the_tokenizer_round_trips(saved: Path) -> None:
    tokenizer = load_fsmt(str(saved)).tokenizer
    rows = encode_targets(tokenizer, TARGETS)
    for text, row in zip(TARGETS, rows, strict=True):
        assert row[-1] == tokenizer.sep_token_id
        pieces = [tokenizer._convert_id_to_token(token) for token in row[:-1]]
        assert tokenizer.convert_tokens_to_string(pieces) == text
    assert max(map(max, rows)) < 101
    assert tokenizer(SOURCES[0]).input_ids[-1] == tokenizer.sep_token_id


def test_a_vocabulary_too_small_for_the_characters_is_refused() -> None:
    with pytest.raises(TranslationError, match="vocab_size 20 is too small"):
        build_tokenizer(SOURCES, TARGETS, ("en", "de"), 20)


def test_tied_tables_opened_untied_are_refused(saved: Path) -> None:
    _edit(saved, tie_word_embeddings=False)
    with pytest.raises(TranslationError, match=r"would be left random .a checkpoint of tied tables"):
        load_fsmt(str(saved))


def test_a_missing_matrix_is_refused(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    del weights["model.decoder.layers.1.fc1.weight"]
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        TranslationError, match=r"the checkpoint lacks model\.decoder\.layers\.1\.fc1\.weight, 1 weights"
    ):
        load_fsmt(str(saved))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_tokenizer_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(TranslationError, match=f"lacks {name}; an FSMT tokenizer is the files"):
        load_fsmt(str(saved))


def test_a_tokenizer_of_another_model_is_refused(saved: Path) -> None:
    vocabulary = json.loads((saved / FILES[1]).read_text())
    vocabulary |= {f"extra{place}": 101 + place for place in range(5)}
    (saved / FILES[1]).write_text(json.dumps(vocabulary))
    with pytest.raises(TranslationError, match=r"vocab-tgt\.json has .* entries and the target table 101 rows"):
        load_fsmt(str(saved))


def test_other_models_and_no_models_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(TranslationError, match="no such folder; allowed"):
        load_fsmt(str(tmp_path / "absent"))
    _edit(saved, model_type="bart")
    with pytest.raises(TranslationError, match="is of type 'bart'; allowed: 'fsmt'"):
        load_fsmt(str(saved))
    (saved / "config.json").unlink()
    with pytest.raises(TranslationError, match=r"has no config\.json"):
        load_fsmt(str(saved))


def test_another_language_pair_is_refused(saved: Path) -> None:
    with pytest.raises(TranslationError, match=r"the task translates en-fr and the model .* en-de"):
        load_fsmt(str(saved)).check_langs("en", "fr")

"""Byte-level BPE: lossless, deterministic, and its reserved token stays reserved."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.corpus_error import CorpusError
from data.tokenizer import (
    END_OF_DOCUMENT,
    END_OF_DOCUMENT_ID,
    BytePairTokenizer,
    check_vocab_size,
    token_dtype,
    tokenizer_threads,
    train_tokenizer,
)

TEXTS = [f"The {animal} saw the {animal}s near the water." for animal in ("cat", "dog", "bird", "fish", "fox")]
TOKENIZER = train_tokenizer(TEXTS, vocab_size=300)


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert END_OF_DOCUMENT_ID not in ids


def test_a_text_that_spells_the_end_does_not_end() -> None:
    assert END_OF_DOCUMENT_ID not in TOKENIZER.encode(f"a{END_OF_DOCUMENT}b")
    assert TOKENIZER.decode([END_OF_DOCUMENT_ID]) == END_OF_DOCUMENT


def test_documents_end_with_the_end() -> None:
    assert TOKENIZER.encode_documents(["The cat", ""]) == [[*TOKENIZER.encode("The cat"), 0], [0]]


def test_merges_are_learned() -> None:
    assert len(TOKENIZER.encode(" water")) == 1
    assert len(train_tokenizer([], vocab_size=257).encode(" water")) == 6


def test_hash_covers_what_it_does_and_not_the_layout() -> None:
    again = BytePairTokenizer(json.dumps(json.loads(TOKENIZER.to_json), indent=7))
    assert again.hash == TOKENIZER.hash == train_tokenizer(TEXTS, vocab_size=300).hash
    assert train_tokenizer(TEXTS, vocab_size=280).hash != TOKENIZER.hash
    assert train_tokenizer(TEXTS[:4], vocab_size=300).hash != TOKENIZER.hash


@pytest.mark.parametrize("vocab_size", [-1, 0, 256, 262_145])
def test_impossible_vocabularies_are_refused(vocab_size: int) -> None:
    with pytest.raises(CorpusError, match=rf"vocab_size is {vocab_size:,}; allowed: 257 .* to 262,144"):
        check_vocab_size(vocab_size)


def test_ids_are_packed_as_small_as_they_fit() -> None:
    assert [token_dtype(size).itemsize for size in (257, 65_536, 65_537, 262_144)] == [2, 2, 4, 4]
    for size in (65_536, 65_537):
        assert int(np.array(size - 1).astype(token_dtype(size))) == size - 1


def test_ids_outside_the_vocabulary_are_refused() -> None:
    with pytest.raises(
        CorpusError, match=rf"token id 9999 is outside this tokenizer; allowed: 0 to {TOKENIZER.n_tokens - 1}"
    ):
        TOKENIZER.decode([5, 9999])


def test_broken_text_is_refused() -> None:
    with pytest.raises(CorpusError, match="the tokenizer cannot be read"):
        BytePairTokenizer("{}")


def test_thread_setting_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "TOKENIZERS_PARALLELISM"
    monkeypatch.delenv(name, raising=False)
    for n_bytes, expected in ((10**6, "false"), (10**9, "true")):
        with tokenizer_threads(n_bytes):
            assert os.environ[name] == expected
        assert name not in os.environ
    monkeypatch.setenv(name, "true")
    with tokenizer_threads(10):
        assert os.environ[name] == "true"
    assert os.environ[name] == "true"

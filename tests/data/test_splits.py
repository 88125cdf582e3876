"""Splits: disjoint, the same for the same text, and of a usable size."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.corpus_error import CorpusError
from data.splits import SPLITS, assign_splits, held_out_bytes


def digests_of(texts: list[str]) -> list[bytes]:
    return [hashlib.sha256(text.encode()).digest() for text in texts]


def split_texts(texts: list[str]) -> list[str]:
    return [SPLITS[number] for number in assign_splits(digests_of(texts), [len(text.encode()) + 1 for text in texts])]


TEXTS = st.lists(st.text(max_size=6), min_size=3, max_size=60).filter(lambda texts: len(set(texts)) >= 3)


@given(TEXTS)
def test_no_text_is_in_two_splits_and_none_is_empty(texts: list[str]) -> None:
    of = split_texts(texts)
    assert set(of) == set(SPLITS)
    for text in set(texts):
        assert len({split for other, split in zip(texts, of, strict=True) if other == text}) == 1


@given(TEXTS)
def test_order_does_not_matter(texts: list[str]) -> None:
    of = dict(zip(texts, split_texts(texts), strict=True))
    turned = texts[::-1]
    assert dict(zip(turned, split_texts(turned), strict=True)) == of


@pytest.mark.parametrize(("n", "share"), [(100, 0.15), (2_000, 0.10), (40_000, 0.05)])
def test_held_out_splits_hold_their_share(n: int, share: float) -> None:
    texts = [f"document {number} ".ljust(1000, "x") for number in range(n)]
    of = assign_splits(digests_of(texts), [1000] * n)
    for split in ("search_validation", "confirmation_test"):
        assert of.count(SPLITS.index(split)) == pytest.approx(share * n, abs=1)


def test_a_huge_corpus_holds_out_no_more_than_it_needs() -> None:
    assert held_out_bytes(2 * 10**9) == 16 * 2**20


def test_too_few_documents_are_refused() -> None:
    with pytest.raises(CorpusError, match=r"holds 2 different documents and its 3 splits"):
        split_texts(["one", "two", "one", "two"])

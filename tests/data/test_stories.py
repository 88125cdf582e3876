"""The floor of the generated text: the oracle meets it, no compressor goes below, and it is exact."""

from __future__ import annotations

import itertools
import lzma
import math
import re
from pathlib import Path

import numpy as np
import pytest

from data.corpus import Corpus, CorpusConfig, load_corpus
from data.stories import Stories, document_entropy, document_log_loss, grammar
from data.tokenizer import END_OF_DOCUMENT

FACTS = "Facts: Mia likes figs. Tom likes rice. Ann likes rice. Ben likes tea."
DOCUMENTS = list(Stories(seed=5, n_bytes=2_000_000).documents())


def test_the_oracle_meets_the_entropy_of_a_document() -> None:
    losses = np.array([document_log_loss(document) for document in DOCUMENTS])
    error = losses.std() / math.sqrt(len(losses))
    assert error < 0.01 * document_entropy()
    assert abs(losses.mean() - document_entropy()) < 4 * error


def test_the_oracle_meets_the_entropy_of_each_kind() -> None:
    """Apart from each other, so that an error in the smaller one is not lost in the spread of the larger."""
    kinds: dict[str, list[float]] = {"Story": [], "Facts": []}
    for document in DOCUMENTS:
        kinds[document[:5]].append(document_log_loss(document) - math.log(2))
    story = grammar().entropy("STORY")
    for kind, entropy in (("Story", story), ("Facts", 2 * (document_entropy() - math.log(2)) - story)):
        error = np.std(kinds[kind]) / math.sqrt(len(kinds[kind]))
        assert abs(np.mean(kinds[kind]) - entropy) < 4 * error


def test_the_oracle_meets_the_floor_per_character() -> None:
    per_document = np.array([(document_log_loss(document), len(document) + 1) for document in DOCUMENTS])
    floor = Stories(seed=0).entropy_floor(len)
    ratio = per_document[:, 0].sum() / per_document[:, 1].sum()
    residual = per_document[:, 0] - ratio * per_document[:, 1]
    error = residual.std() / math.sqrt(len(residual)) / per_document[:, 1].mean()
    assert error < 0.005 * floor
    assert abs(ratio - floor) < 4 * error


def test_the_oracle_meets_the_corpus_floor_per_token(stories: Corpus) -> None:
    """On every split, in the tokens that a model is trained on; 600 kB is known to about 1 %."""
    assert stories.entropy_floor is not None
    nats = tokens = 0.0
    for split in ("train", "search_validation", "confirmation_test"):
        documents = stories.decode(stories.tokens(split)[:]).split(END_OF_DOCUMENT)[:-1]
        nats += sum(document_log_loss(document) for document in documents)
        tokens += stories.n_tokens(split)
    assert nats / tokens == pytest.approx(stories.entropy_floor, rel=0.02)


def test_words_take_the_tokens_that_the_floor_counts(stories: Corpus) -> None:
    """Every word is cut by itself, so tokens add up over words: what makes the expected length exact."""
    counts = {word: len(stories.encode(word)) for word in {*grammar().words(), "Facts", " Again", " likes"}}
    for document in DOCUMENTS[:400]:
        words = document.replace(" ", "\0 ")
        for mark in ".,:":
            words = words.replace(mark, f"\0{mark}")
        total = sum(counts.get(word) or len(stories.encode(word)) for word in words.split("\0") if word)
        assert total == len(stories.encode(document))
    assert not re.search(r"[.,:]{2}", "".join(DOCUMENTS)), "two marks in a row could be merged into one token"


def test_no_compressor_goes_below_the_floor() -> None:
    text = "\n".join(DOCUMENTS)
    compressed = len(lzma.compress(text.encode(), preset=9)) * 8 * math.log(2) / len(text)
    assert compressed > Stories(seed=0).entropy_floor(len)


def test_recall_answers_follow_from_the_facts() -> None:
    recalls = [document for document in DOCUMENTS if document.startswith("Facts:")]
    assert len(recalls) == pytest.approx(len(DOCUMENTS) / 2, rel=0.1)
    for document in recalls[:200]:
        facts, again = document.removeprefix("Facts:").split(" Again:")
        assert {*again.strip(".").split(".")} <= {*facts.strip(".").split(".")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Facts: Mia likes figs. Again: Mia likes figs. Mia likes figs.", "do not belong together"),
        (
            FACTS + " Again: Mia likes tea. Mia likes figs.",
            "do not belong together",
        ),
        (
            FACTS.replace("Tom", "Mia") + " Again: Ann likes rice. Ann likes rice.",
            "twice",
        ),
        ("Facts: Mia likes figs.", "not asked"),
        ("Facts: Mia hates figs. Again: Mia hates figs.", "not a list"),
        ("Story: Mia ran.", "word 5"),
        ("Once upon a time.", "word 0"),
    ],
)
def test_the_oracle_refuses_what_was_not_generated(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        document_log_loss(text)


def test_seeds_differ_and_repeat_and_share_the_floor() -> None:
    first, again, other = (list(itertools.islice(Stories(seed=s).documents(), 50)) for s in (0, 0, 1))
    assert first == again
    assert not set(first) & set(other)
    assert Stories(seed=0).fingerprint() != Stories(seed=1).fingerprint()
    assert Stories(seed=0).entropy_floor(len) == Stories(seed=1).entropy_floor(len)


def test_hardly_any_document_comes_twice() -> None:
    assert len(set(DOCUMENTS)) > 0.999 * len(DOCUMENTS)


def test_another_seed_is_another_corpus(stories: Corpus, cache: Path) -> None:
    other = load_corpus(CorpusConfig(source="stories", max_bytes=600_000, seed=1), cache)
    assert other.hash != stories.hash

"""The exact entropy against enumeration and closed forms, and the refusals that make it exact."""

from __future__ import annotations

import itertools
import math

import pytest

from data.grammar import Grammar, Rules, split_words
from data.keyed_random import numpy_generator

FINITE: Rules = {
    "TEXT": [(3, ["Tell", "WHO", "ASIDE", "DID", "."]), (1, ["Ask", "WHO", "."])],
    "WHO": [(2, [" Ann"]), (1, [" Ben"])],
    "ASIDE": [(1, [" who", "DID", ","]), (4, [])],
    "DID": [(1, [" ran"]), (1, [" sat"]), (2, [" saw", "WHO"])],
}


def texts_of(rules: Rules, symbol: str) -> list[tuple[float, tuple[str, ...]]]:
    """Every text with the probability of its derivation, written out; finite grammars only."""
    if symbol not in rules:
        return [(1.0, (symbol,))]
    total = sum(weight for weight, _ in rules[symbol])
    found = []
    for weight, parts in rules[symbol]:
        for combination in itertools.product(*(texts_of(rules, part) for part in parts)):
            p = math.prod([weight / total, *(q for q, _ in combination)])
            found.append((p, tuple(word for _, words in combination for word in words)))
    return found


def test_entropy_length_and_oracle_equal_enumeration() -> None:
    grammar = Grammar(FINITE)
    texts = texts_of(FINITE, "TEXT")
    assert len({words for _, words in texts}) == len(texts) == 42
    assert sum(p for p, _ in texts) == pytest.approx(1, abs=1e-12)
    assert grammar.entropy("TEXT") == pytest.approx(-sum(p * math.log(p) for p, _ in texts), abs=1e-12)
    length = grammar.expected("TEXT", word=lambda word: 1.0, choice=lambda p: 0.0)
    assert length == pytest.approx(sum(p * len(words) for p, words in texts), abs=1e-12)
    for p, words in texts:
        assert grammar.log_loss("TEXT", words) == pytest.approx(-math.log(p), abs=1e-12)
        assert split_words("".join(words)) == list(words)


def test_recursion_has_the_closed_form() -> None:
    """A geometric number of words: entropy (h(p)) / (1 - p) nats, expected length p / (1 - p)."""
    p = 0.7
    grammar = Grammar({"LIST": [(p, [" more", "LIST"]), (1 - p, [])]})
    h = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert grammar.entropy("LIST") == pytest.approx(h / (1 - p), rel=1e-12)
    assert grammar.expected("LIST", word=lambda w: 1.0, choice=lambda q: 0.0) == pytest.approx(p / (1 - p), rel=1e-12)


def test_samples_have_the_stated_frequencies() -> None:
    grammar = Grammar(FINITE)
    draw = numpy_generator("samples").random
    n = 20_000
    counts: dict[tuple[str, ...], int] = {}
    for _ in range(n):
        words = tuple(grammar.sample("TEXT", draw))
        counts[words] = counts.get(words, 0) + 1
    texts = texts_of(FINITE, "TEXT")
    chi2 = sum((counts.get(words, 0) - n * p) ** 2 / (n * p) for p, words in texts)
    assert sum(counts.values()) == sum(counts.get(words, 0) for _, words in texts)
    assert chi2 < 75  # 41 degrees of freedom: above 75 in 1 of 1,000


@pytest.mark.parametrize("text", ["Tell Ann.", "Tell Ann ran", "Ask Ann. Ask", "Ask Cat.", "", "Tell Ann who ran ran."])
def test_the_oracle_refuses_other_texts(text: str) -> None:
    with pytest.raises(ValueError, match=r"word \d+"):
        Grammar(FINITE).log_loss("TEXT", split_words(text))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"A": [(1, [" x", " y"]), (1, [" x", " z"])]}, "two alternatives of A can begin with ' x'"),
        ({"A": [(1, ["B"]), (1, ["C"])], "B": [(1, [" x"])], "C": [(1, [" x"])]}, "two alternatives of A can begin"),
        ({"A": [(1, ["B", " x"])], "B": [(1, [" x"]), (1, [])]}, "B may be empty and may begin with ' x'"),
        ({"A": [(1, ["B"]), (1, [])], "B": [(1, [" x", "A", " x"])]}, "A may be empty and may begin with ' x'"),
        ({"A": [(1, []), (1, [])]}, "two alternatives of A"),
        ({"A": [(0.6, [" x", "A", "A"]), (0.4, [" y"])]}, "infinitely long"),
        ({"A": [(0, [" x"]), (1, [" y"])]}, "weights of A"),
        ({"A": []}, "weights of A"),
        ({"A": [(1, [" two words"])]}, "' two words' is neither"),
    ],
)
def test_grammars_without_an_exact_entropy_are_refused(rules: Rules, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grammar(rules)


def test_text_that_is_not_words_is_refused() -> None:
    with pytest.raises(ValueError, match="not made of words"):
        split_words("two  spaces")

"""Generated text with a known entropy floor: small stories, and facts to be recalled.

Choices: about half of the documents are stories from a grammar (nested clauses, agreement in number
across them); the others state who likes what and then repeat some of it, where the answer costs no
information at all to a model that looks it up (associative recall; Arora et al. 2023). Text and
derivation determine each other, so the entropy of a document is exact, and since byte-level BPE cuts every
word by itself, so is the expected number of tokens: their ratio is the floor in nats per token. No
model's expected loss is below it; one that sees a limited context stays somewhat above.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain

from data.grammar import Grammar, Rules, split_words, zipf
from data.keyed_random import numpy_generator

DEFAULT_BYTES = 4 * 2**20
STORY_PROBABILITY = 0.5
PAIRS = (4, 5, 6, 7, 8)
QUESTIONS = (2, 3, 4, 5, 6)


def _spaced(words: str) -> list[str]:
    return [f" {word}" for word in words.split()]


_NAMES = _spaced("Mia Tom Ann Ben Lily Max Sue Sam Zoe Leo Ivy Ned Amy Gus Eva Jack")
_FOODS = _spaced("figs plums rice cake nuts corn beans pears soup bread jam peas tea milk fish eggs")
_FACTS = ["Facts", ":"]
_AGAIN = [" Again", ":"]
_LIKES = " likes"
_DRAWS = 65_536


RULES: Rules = {
    "STORY": [(1, ["Story", ":", "SENTENCE", "SENTENCE", "SENTENCE", "MORE"])],
    "MORE": [(0.7, ["SENTENCE", "MORE"]), (0.3, [])],
    "SENTENCE": [
        (0.40, ["PERSON", "DID", "ALSO", "."]),
        (0.20, [" Then", "PERSON", "DID", "ALSO", "."]),
        (0.15, [" One", "TIME", ",", "PERSON", "DID", "ALSO", "."]),
        (0.15, [" The", "ONE", "LIKE_ONE", " was", "STATE", "."]),
        (0.10, [" Many", "SOME", "LIKE_SOME", " were", "STATE", "."]),
    ],
    "PERSON": [(1, ["NAME", "WHO"])],
    "WHO": [(0.15, [" who", "DID", ","]), (0.85, [])],
    "ALSO": [(0.25, [" and", "DID"]), (0.75, [])],
    "DID": [
        (0.45, ["ACTED_ON", "THING", "WHERE"]),
        (0.25, ["ACTED", "WHERE"]),
        (0.15, ["MET", "NAME"]),  # no clause here: two closing commas would make one token
        (0.15, ["SAID", " that", "PERSON", "DID"]),
    ],
    "THING": [(0.6, [" a", "HOW", "ONE"]), (0.3, [" the", "HOW", "ONE"]), (0.1, [" two", "HOW", "SOME"])],
    "HOW": [(0.4, ["QUALITY"]), (0.6, [])],
    "LIKE_ONE": [(0.3, [" near", "PLACE"]), (0.2, [" that", "NAME", "ACTED_ON"]), (0.5, [])],
    "LIKE_SOME": [(0.3, [" near", "PLACE"]), (0.2, [" that", "NAME", "ACTED_ON"]), (0.5, [])],
    "WHERE": [(0.35, ["AT", "PLACE"]), (0.65, [])],
    "NAME": zipf(_NAMES),
    "ONE": zipf(_spaced("ball box cat dog cup tree bird hat car doll boat bag key coat drum kite")),
    "SOME": zipf(_spaced("balls boxes cats dogs cups trees birds hats cars dolls boats bags keys coats drums kites")),
    "QUALITY": zipf(_spaced("big red little old happy blue new soft green shiny sad round tall warm quiet funny")),
    "STATE": zipf(_spaced("gone wet lost broken safe dirty clean ready heavy empty bright cold")),
    "ACTED_ON": zipf(
        _spaced("found saw wanted made took lost gave held liked fixed drew moved hid cleaned painted broke")
    ),
    "ACTED": zipf(_spaced("played ran sat smiled laughed jumped slept cried danced waited sang rested")),
    "MET": zipf(_spaced("met helped hugged asked followed called thanked taught")),
    "SAID": zipf(_spaced("said thought knew heard hoped dreamed")),
    "AT": zipf(_spaced("in by behind outside under beyond")),
    "PLACE": [(1, [" the", "SPOT"])],
    "SPOT": zipf(_spaced("park house garden forest school river hill shop lake farm beach barn")),
    "TIME": zipf(_spaced("day morning night evening summer winter afternoon spring")),
}


@cache
def grammar() -> Grammar:
    """The grammar of the stories."""
    return Grammar(RULES)


class Stories:
    """A seeded stream of generated documents.

    Attributes:
        name: `stories`.
    """

    def __init__(self, *, seed: int, n_bytes: int = DEFAULT_BYTES) -> None:
        """The documents of `seed`, until they hold `n_bytes`."""
        self.name = "stories"
        self._seed = seed
        self._n_bytes = n_bytes

    def fingerprint(self) -> str:
        """sha256 of the grammar, the seed and the amount."""
        content = [RULES, STORY_PROBABILITY, PAIRS, QUESTIONS, _NAMES, _FOODS, self._seed, self._n_bytes]
        return hashlib.sha256(json.dumps(["stories 1", *content]).encode()).hexdigest()

    def documents(self) -> Iterator[str]:
        """The documents, without line ends."""
        rng = numpy_generator("stories", self._seed)
        draw = chain.from_iterable(rng.random(_DRAWS).tolist() for _ in iter(int, 1)).__next__
        written = 0
        while written < self._n_bytes:
            document = "".join(grammar().sample("STORY", draw) if draw() < STORY_PROBABILITY else _recall(draw))
            written += len(document)
            yield document

    def entropy_floor(self, n_tokens: Callable[[str], int]) -> float:
        """Entropy of a document over its expected tokens, counting its end as one: nats per token, exact.

        Args:
            n_tokens: tokens of one word; `len` gives nats per character.
        """
        p = STORY_PROBABILITY
        story = grammar().expected("STORY", word=lambda word: float(n_tokens(word)), choice=lambda p: 0.0)
        return document_entropy() / (p * story + (1 - p) * _recall_tokens(n_tokens) + 1)


def document_entropy() -> float:
    """Entropy of one document in nats, exact."""
    p = STORY_PROBABILITY
    kind = -p * math.log(p) - (1 - p) * math.log(1 - p)
    return kind + p * grammar().entropy("STORY") + (1 - p) * _recall_entropy()


def document_log_loss(text: str) -> float:
    """What the ideal model pays for the whole document `text`, in nats.

    Raises:
        ValueError: the generator cannot have written it.
    """
    words = split_words(text)
    if words[:2] == _FACTS:
        return -math.log(1 - STORY_PROBABILITY) + _recall_log_loss(words)
    return -math.log(STORY_PROBABILITY) + grammar().log_loss("STORY", words)


def _recall(draw: Callable[[], float]) -> list[str]:
    """Pairs of distinct names and any foods, then some of the pairs again, in any order and with repeats."""
    names = list(_NAMES)
    n_pairs = PAIRS[int(draw() * len(PAIRS))]
    for place in range(n_pairs):
        other = place + int(draw() * (len(names) - place))
        names[place], names[other] = names[other], names[place]
    pairs = [(name, _FOODS[int(draw() * len(_FOODS))]) for name in names[:n_pairs]]
    asked = [pairs[int(draw() * n_pairs)] for _ in range(QUESTIONS[int(draw() * len(QUESTIONS))])]
    return [*_FACTS, *_sentences(pairs), *_AGAIN, *_sentences(asked)]


def _sentences(pairs: list[tuple[str, str]]) -> list[str]:
    return [word for name, food in pairs for word in (name, _LIKES, food, ".")]


def _recall_entropy() -> float:
    nats = math.log(len(PAIRS)) + math.log(len(QUESTIONS))
    for n_pairs in PAIRS:
        stated = sum(math.log(len(_NAMES) - place) for place in range(n_pairs)) + n_pairs * math.log(len(_FOODS))
        asked = _mean(QUESTIONS) * math.log(n_pairs)  # the name asked for; the food follows from it
        nats += (stated + asked) / len(PAIRS)
    return nats


def _recall_tokens(n_tokens: Callable[[str], int]) -> float:
    """By symmetry every name and every food is equally likely at each of its places."""
    sentence = _mean([n_tokens(name) for name in _NAMES]) + _mean([n_tokens(food) for food in _FOODS])
    sentence += n_tokens(_LIKES) + n_tokens(".")
    return sum(n_tokens(word) for word in [*_FACTS, *_AGAIN]) + (_mean(PAIRS) + _mean(QUESTIONS)) * sentence


def _recall_log_loss(words: list[str]) -> float:
    middle = words.index(_AGAIN[0]) if _AGAIN[0] in words else len(words)
    stated, asked = _pairs(words[len(_FACTS) : middle]), _pairs(words[middle + len(_AGAIN) :])
    known = dict(stated)
    if words[middle : middle + len(_AGAIN)] != _AGAIN or len(known) != len(stated):
        raise ValueError("the facts name somebody twice or are not asked for again")
    if len(stated) not in PAIRS or len(asked) not in QUESTIONS or any(known.get(name) != food for name, food in asked):
        raise ValueError(f"{len(stated)} facts and {len(asked)} questions do not belong together")
    nats = math.log(len(PAIRS)) + math.log(len(QUESTIONS)) + len(asked) * math.log(len(stated))
    return nats + sum(math.log(len(_NAMES) - place) + math.log(len(_FOODS)) for place in range(len(stated)))


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    pairs = list(zip(words[0::4], words[2::4], strict=False))
    if _sentences(pairs) != words or not all(name in _NAMES and food in _FOODS for name, food in pairs):
        raise ValueError(f"{''.join(words)!r:.60} is not a list of who likes what")
    return pairs


def _mean(values: tuple[int, ...] | list[int]) -> float:
    return sum(values) / len(values)

"""The embedded translation corpus: an English-German-like language pair, generated.

Choices: a synchronous grammar writes a sentence in both languages at once, so every pair is correct by construction
and nothing is downloaded. German has what makes the pair worth learning: three genders in nominative, accusative and
dative, adjective endings, the verb second after a fronted adverb, infinitives at the end after a modal verb, and the
verb last after a conjunction. About 110 words a side; sentences of 5 to 25 words. No English sentence comes twice, so
splits share none, and the same arguments give the same text everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from data.keyed_random import numpy_generator

Pair = tuple[str, str]


def _rows(text: str) -> list[tuple[str, ...]]:
    return [tuple(row.split("/")) for row in text.split()]


# English noun, German noun, gender (m, f, n).
_NOUNS = _rows(
    "man/Mann/m woman/Frau/f child/Kind/n dog/Hund/m cat/Katze/f horse/Pferd/n teacher/Lehrer/m farmer/Bauer/m "
    "doctor/Arzt/m girl/Mädchen/n student/Schüler/m bird/Vogel/m cow/Kuh/f sheep/Schaf/n neighbour/Nachbar/m "
    "aunt/Tante/f uncle/Onkel/m singer/Sängerin/f painter/Maler/m baker/Bäcker/m"
)
_THINGS = _rows(
    "book/Buch/n letter/Brief/m apple/Apfel/m lamp/Lampe/f house/Haus/n table/Tisch/m picture/Bild/n "
    "flower/Blume/f boat/Boot/n bag/Tasche/f bread/Brot/n cup/Tasse/f key/Schlüssel/m car/Auto/n coat/Mantel/m "
    "clock/Uhr/f door/Tür/f ball/Ball/m hat/Hut/m song/Lied/n"
)
_PLACES = _rows(
    "garden/Garten/m town/Stadt/f field/Feld/n school/Schule/f forest/Wald/m kitchen/Küche/f village/Dorf/n "
    "market/Markt/m church/Kirche/f castle/Schloss/n"
)
_ADJECTIVES = _rows(
    "old/alt young/jung small/klein big/groß red/rot green/grün friendly/freundlich tired/müd new/neu "
    "beautiful/schön quiet/ruhig strange/fremd rich/reich poor/arm black/schwarz"
)
# English third person, English infinitive, German third person, German infinitive.
_VERBS = _rows(
    "sees/see/sieht/sehen buys/buy/kauft/kaufen finds/find/findet/finden carries/carry/trägt/tragen "
    "paints/paint/malt/malen loses/lose/verliert/verlieren sells/sell/verkauft/verkaufen shows/show/zeigt/zeigen "
    "looks_for/look_for/sucht/suchen needs/need/braucht/brauchen forgets/forget/vergisst/vergessen "
    "takes/take/nimmt/nehmen loves/love/liebt/lieben cleans/clean/putzt/putzen hides/hide/versteckt/verstecken"
)
_MODALS = _rows("can/kann wants_to/will must/muss may/darf should/soll")
_ADVERBS = _rows("today/heute now/jetzt often/oft sometimes/manchmal tomorrow/morgen always/immer never/nie here/hier")
_CONJUNCTIONS = _rows("because/weil although/obwohl if/wenn")

_DEFINITE = {
    "nom": {"m": "der", "f": "die", "n": "das"},
    "acc": {"m": "den", "f": "die", "n": "das"},
    "dat": {"m": "dem", "f": "der", "n": "dem"},
}
_INDEFINITE = {
    "nom": {"m": "ein", "f": "eine", "n": "ein"},
    "acc": {"m": "einen", "f": "eine", "n": "ein"},
    "dat": {"m": "einem", "f": "einer", "n": "einem"},
}
_AFTER_INDEFINITE = {
    "nom": {"m": "er", "f": "e", "n": "es"},
    "acc": {"m": "en", "f": "e", "n": "es"},
    "dat": {"m": "en", "f": "en", "n": "en"},
}


class Transduction:
    """The pairs of the generated corpus, in order.

    Args:
        seed: of the corpus.
        n_pairs: how many different pairs.
    """

    def __init__(self, *, seed: int, n_pairs: int) -> None:
        self._seed = seed
        self._n_pairs = n_pairs

    def pairs(self) -> Iterator[Pair]:
        """(English, German), each English sentence once."""
        seen: set[str] = set()
        draw = numpy_generator("transduction", self._seed)
        while len(seen) < self._n_pairs:
            english, german = _sentence(draw)
            if english not in seen:
                seen.add(english)
                yield english, german


def _sentence(draw: np.random.Generator) -> Pair:
    english, german = _clause(draw, front=draw.random() < 0.35)
    if draw.random() < 0.4:
        word, wort = _one(draw, _CONJUNCTIONS)
        more, mehr = _clause(draw, front=False, verb_last=True)
        english, german = f"{english} {word.replace('_', ' ')} {more}", f"{german}, {wort.replace('_', ' ')} {mehr}"
    return english[0].upper() + english[1:] + ".", german[0].upper() + german[1:] + "."


def _clause(draw: np.random.Generator, *, front: bool, verb_last: bool = False) -> Pair:
    subject, subjekt = _noun_phrase(draw, _NOUNS, "nom")
    thing, ding = _noun_phrase(draw, _NOUNS if draw.random() < 0.25 else _THINGS, "acc")
    verb, infinitive, verbum, infinitiv = (word.replace("_", " ") for word in _one(draw, _VERBS))
    where, wo = _place(draw) if draw.random() < 0.45 else ("", "")
    when, wann = _one(draw, _ADVERBS) if front or draw.random() < 0.25 else ("", "")
    last = ""
    if draw.random() < 0.4:
        modal, modus = (word.replace("_", " ") for word in _one(draw, _MODALS))
        verb, verbum, last = f"{modal} {infinitive}", modus, infinitiv
    if front:
        return _joined(f"{when},", subject, verb, thing, where), _joined(wann, verbum, subjekt, ding, wo, last)
    english = _joined(subject, verb, thing, where, when)
    if verb_last:
        return english, _joined(subjekt, wann, ding, wo, last, verbum)
    return english, _joined(subjekt, verbum, wann, ding, wo, last)


def _place(draw: np.random.Generator) -> Pair:
    place, ort = _noun_phrase(draw, _PLACES, "dat")
    word, wort = _one(draw, [("in", "in"), ("near", "bei"), ("behind", "hinter"), ("next_to", "neben")])
    return f"{word.replace('_', ' ')} {place}", f"{wort} {ort}"


def _noun_phrase(draw: np.random.Generator, nouns: list[tuple[str, ...]], case: str) -> Pair:
    noun, nomen, gender = _one(draw, nouns)
    definite = draw.random() < 0.55
    article = (_DEFINITE if definite else _INDEFINITE)[case][gender]
    adjectives: list[str] = []
    formen: list[str] = []
    for _ in range(int(draw.random() < 0.5) + int(draw.random() < 0.2)):
        adjective, stem = _one(draw, _ADJECTIVES)
        ending = (
            ("e" if case == "nom" or (case == "acc" and gender != "m") else "en")
            if definite
            else (_AFTER_INDEFINITE[case][gender])
        )
        adjectives.append(adjective)
        formen.append(stem + ending)
    word = " ".join([*adjectives, noun])
    english_article = "the" if definite else "an" if word[0] in "aeiou" else "a"
    return f"{english_article} {word}", " ".join([article, *formen, nomen])


def _one(draw: np.random.Generator, rows: list[tuple[str, ...]]) -> tuple[str, ...]:
    return rows[int(draw.integers(len(rows)))]


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)

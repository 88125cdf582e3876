"""A probabilistic context-free grammar whose entropy is known exactly.

Choices: the grammar must be LL(1): the next word always decides which alternative was taken. Then a text
has one derivation only, so the entropy of texts equals the entropy of derivations, which solves the linear
system h = b + M h (b: entropy of a symbol's own choice, M: expected children; Grenander 1967), and an
oracle can score a text word by word. A grammar that is not LL(1), whose weights are not positive or whose
texts would not end is refused when it is made.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

Rules = Mapping[str, Sequence[tuple[float, Sequence[str]]]]
Draw = Callable[[], float]

WORD = re.compile(r" ?\w+|[^\w\s]")


class Grammar:
    """Weighted alternatives per symbol; whatever is not a key of the rules is a word of the text.

    Attributes:
        symbols: the symbols in the order of the rules.
    """

    def __init__(self, rules: Rules) -> None:
        """From {symbol: [(weight, parts), ...]}; weights of a symbol are scaled to sum to 1.

        Raises:
            ValueError: a weight is not positive, a word is not one word with its leading space or punctuation,
                two alternatives can begin alike, or the expected length is infinite.
        """
        self.symbols = list(rules)
        self._parts = {symbol: [tuple(parts) for _, parts in rules[symbol]] for symbol in rules}
        self._probabilities = {symbol: _scaled(symbol, [weight for weight, _ in rules[symbol]]) for symbol in rules}
        self._cumulative = {symbol: list(accumulate(self._probabilities[symbol]))[:-1] for symbol in rules}
        self._check_words()
        self._first: dict[str, frozenset[str]] = {}
        self._choices = {symbol: self._choices_of(symbol) for symbol in rules}
        self._expected_children = self._children()
        if max(abs(np.linalg.eigvals(self._expected_children))) >= 1:
            raise ValueError(
                "the grammar's expected text is infinitely long; lower the weights of recursive alternatives"
            )

    def sample(self, symbol: str, draw: Draw) -> list[str]:
        """The words of a random text derived from `symbol`; `draw` gives uniform numbers in [0, 1)."""
        words: list[str] = []
        waiting = [symbol]
        while waiting:
            part = waiting.pop()
            alternatives = self._parts.get(part)
            if alternatives is None:
                words.append(part)
            else:
                waiting.extend(reversed(alternatives[bisect_right(self._cumulative[part], draw())]))
        return words

    def entropy(self, symbol: str) -> float:
        """Entropy of the texts derived from `symbol`, in nats, exact."""
        return self.expected(symbol, word=lambda text: 0.0, choice=lambda p: -float(np.log(p)))

    def expected(self, symbol: str, *, word: Callable[[str], float], choice: Callable[[float], float]) -> float:
        """The expected sum, over a text derived from `symbol`, of a value per word and per choice, exact.

        Args:
            symbol: where derivation starts.
            word: value of one word.
            choice: value of taking an alternative of the given probability.
        """
        own = [
            sum(
                p * (choice(p) + sum(word(part) for part in parts if part not in self._parts))
                for p, parts in zip(self._probabilities[name], self._parts[name], strict=True)
            )
            for name in self.symbols
        ]
        totals = np.linalg.solve(np.eye(len(own)) - self._expected_children, np.array(own, dtype=np.float64))
        return float(totals[self.symbols.index(symbol)])

    def log_loss(self, symbol: str, words: Sequence[str]) -> float:
        """Minus the log probability of exactly `words` under `symbol`, in nats.

        Raises:
            ValueError: the grammar cannot produce them.
        """
        position = 0
        nats = 0.0
        waiting = [symbol]
        while waiting:
            part = waiting.pop()
            word = words[position] if position < len(words) else None
            if part in self._parts:
                alternative = self._choices[part].get(word, self._choices[part].get(None))
                if alternative is None:
                    raise ValueError(f"word {position}, {word!r}, cannot begin {part}")
                nats -= float(np.log(self._probabilities[part][alternative]))
                waiting.extend(reversed(self._parts[part][alternative]))
            elif part == word:
                position += 1
            else:
                raise ValueError(f"word {position} is {word!r} and must be {part!r}")
        if position != len(words):
            raise ValueError(f"word {position}, {words[position]!r}, comes after the end")
        return nats

    def words(self) -> list[str]:
        """Every word of the grammar, each once, in order of appearance."""
        parts = (part for symbol in self.symbols for alternative in self._parts[symbol] for part in alternative)
        return list(dict.fromkeys(part for part in parts if part not in self._parts))

    def _check_words(self) -> None:
        for word in self.words():
            if not WORD.fullmatch(word):
                raise ValueError(f"{word!r} is neither a symbol of the grammar nor one word with its leading space")

    def _choices_of(self, symbol: str) -> dict[str | None, int]:
        """Next word to alternative; None stands for the empty alternative, taken when no other begins so."""
        choices: dict[str | None, int] = {}
        for number, parts in enumerate(self._parts[symbol]):
            for word in self._beginnings(parts) if parts else [None]:
                if word in choices:
                    raise ValueError(f"two alternatives of {symbol} can begin with {word!r}; the grammar must be LL(1)")
                choices[word] = number
        if None in choices:
            clash = self._follow()[symbol] & set(choices)
            if clash:
                raise ValueError(f"{symbol} may be empty and may begin with {min(clash)!r}, which can also follow it")
        return choices

    def _beginnings(self, parts: Sequence[str]) -> frozenset[str]:
        """The words that `parts` can begin with, skipping what may be empty."""
        found: set[str] = set()
        for part in parts:
            if part not in self._parts:
                return frozenset(found | {part})
            if part not in self._first:
                self._first[part] = frozenset()  # left recursion ends here and is refused as a clash or as endless
                self._first[part] = frozenset().union(*(self._beginnings(one) for one in self._parts[part]))
            found |= self._first[part]
            if () not in self._parts[part]:
                return frozenset(found)
        return frozenset(found)

    def _follow(self) -> dict[str, set[str]]:
        """The words that can come right after each symbol, by iteration to a fixed point."""
        follow: dict[str, set[str]] = {symbol: set() for symbol in self.symbols}
        changed = True
        while changed:
            changed = False
            for symbol in self.symbols:
                for parts in self._parts[symbol]:
                    for position, part in enumerate(parts):
                        if part not in follow:
                            continue
                        rest = parts[position + 1 :]
                        can_end = all(() in self._parts.get(other, ()) for other in rest)
                        reached = set(self._beginnings(rest)) | (follow[symbol] if can_end else set())
                        changed |= not reached <= follow[part]
                        follow[part] |= reached
        return follow

    def _children(self) -> npt.NDArray[np.float64]:
        matrix = np.zeros((len(self.symbols), len(self.symbols)))
        for row, symbol in enumerate(self.symbols):
            for p, parts in zip(self._probabilities[symbol], self._parts[symbol], strict=True):
                for part in parts:
                    if part in self._parts:
                        matrix[row, self.symbols.index(part)] += p
        return matrix


def split_words(text: str) -> list[str]:
    """The words of a text: letters or digits with the space before them, and single punctuation marks.

    Raises:
        ValueError: something in it is neither.
    """
    words = WORD.findall(text)
    if "".join(words) != text:
        raise ValueError(f"the text {text[:40]!r} is not made of words and punctuation alone")
    return words


def zipf(words: Iterable[str]) -> list[tuple[float, list[str]]]:
    """One alternative per word, weights 1/2, 1/3, 1/4 ...: a few are common and most are rare, as in real text."""
    return [(1.0 / rank, [word]) for rank, word in enumerate(words, start=2)]


def _scaled(symbol: str, weights: list[float]) -> list[float]:
    if not weights or min(weights) <= 0:
        raise ValueError(f"the weights of {symbol} are {weights}; each must be above 0")
    return [weight / sum(weights) for weight in weights]

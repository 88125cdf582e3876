"""Generated arithmetic: three skills on four digits, each problem in exactly one split.

A problem reads `+4827=` and its answer `21;`: the sum (+), the largest (>) or the smallest (<) of
four digits. There are 10,000 of each. Which split one belongs to depends on a hash of its text alone,
so nothing that experts were trained on is ever searched with or reported on.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence

from data.corpus_error import CorpusError, near_matches
from data.keyed_random import numpy_generator
from data.math_problems import MathProblem

ALPHABET = "0123456789+<>=;"
END = ";"
N_DIGITS = 4
_SIGNS: dict[str, tuple[str, Callable[[Sequence[int]], int]]] = {
    "total": ("+", sum),
    "largest": (">", max),
    "smallest": ("<", min),
}
SKILLS = tuple(_SIGNS)
_SHARES = (("train", 76), ("evolve", 88), ("promote", 92), ("report", 100))
"""Split and the hundredth at which it ends: 76 % train, 12 % evolve, 4 % promote, 8 % report."""
ARITHMETIC_SPLITS = tuple(name for name, _ in _SHARES)


def arithmetic_split(question: str) -> str:
    """The split a question belongs to."""
    hundredth = int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big") % 100
    return next(name for name, end in _SHARES if hundredth < end)


@functools.cache
def _all(skill: str, split: str) -> tuple[MathProblem, ...]:
    sign, compute = _SIGNS[skill]
    problems = []
    for number in range(10**N_DIGITS):
        digits = f"{number:0{N_DIGITS}d}"
        question = f"{sign}{digits}="
        if arithmetic_split(question) == split:
            answer = str(compute([int(digit) for digit in digits]))
            item = hashlib.sha256(question.encode()).hexdigest()
            problems.append(
                MathProblem(question=question, answer=answer, item=item, source=f"arithmetic:{question}", skill=skill)
            )
    return tuple(problems)


def arithmetic_problems(
    split: str, count: int | None = None, *, skills: Sequence[str] = SKILLS, seed: int = 0
) -> list[MathProblem]:
    """Problems of one split, the skills in turn.

    Args:
        split: `train`, `evolve`, `promote` or `report`.
        count: how many of all skills together, drawn without repetition; None: all.
        skills: which skills.
        seed: of the drawing.

    Raises:
        CorpusError: an unknown split or skill, or more problems than there are.
    """
    if split not in ARITHMETIC_SPLITS:
        raise CorpusError(
            f"arithmetic has no split {split!r}{near_matches(split, ARITHMETIC_SPLITS) or ';'} "
            f"allowed: {', '.join(ARITHMETIC_SPLITS)}"
        )
    for skill in skills:
        if skill not in SKILLS:
            raise CorpusError(
                f"unknown skill {skill!r}{near_matches(skill, SKILLS) or ';'} allowed: {', '.join(SKILLS)}"
            )
    columns = []
    for skill in skills:
        problems = _all(skill, split)
        order = numpy_generator("arithmetic", split, skill, seed).permutation(len(problems))
        columns.append([problems[place] for place in order.tolist()])
    shortest = min(map(len, columns))
    mixed = [column[row] for row in range(shortest) for column in columns]
    if count is not None and count > len(mixed):
        raise CorpusError(f"{count} problems were asked of arithmetic {split}; it has {len(mixed)} with equal shares")
    return mixed if count is None else mixed[:count]

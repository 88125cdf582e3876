"""The number a text answers with, and two ways to score it.

Ours reads numbers as people write them: any script's digits, thousands groups, decimal commas, currency and per cent
signs, and a minus that is not an operator. Two answers are equal when they are the same number, so `29.00` is `29`.
The second way is that of lm-evaluation-harness, kept exactly, traps included, so that figures can be
compared with published ones.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal, InvalidOperation

DECIMAL_COMMA = frozenset({"de", "es", "fr", "ru"})
"""Languages that write 1.234,50 for what English writes 1,234.50."""

_PHRASES = (
    r"answer\s*(?:is|:|=)",
    r"Die Antwort lautet",
    r"La respuesta es",
    r"La réponse est",
    r"Ответ",
    r"Jibu ni",
    r"సమాధానం",
    r"คำตอบคือ",
    r"答えは",
    r"答案是",
    r"\\boxed\s*\{",
)
_PHRASE = re.compile("|".join(unicodedata.normalize("NFKC", phrase) for phrase in _PHRASES), re.IGNORECASE)
_CURRENCY = "$€£¥₹₽฿"
_GROUP_SPACES = "\u0020_"  # after NFKC every kind of space is this one
_NUMBER = re.compile(
    rf"(?P<sign>[-+])?(?:[{re.escape(_CURRENCY)}][ ]?)?(?P<sign2>[-+])?"
    rf"(?P<body>\d{{1,3}}(?:[{_GROUP_SPACES}'’]\d{{3}})+(?!\d)(?:[.,]\d+)?|\d+(?:[.,]\d+)*|[.]\d+)"
    r"(?P<exponent>[eE][-+]?\d{1,3}(?![\w.]))?"
    r"(?:/(?P<below>\d+)(?![\d/]))?"
    r"[ ]?(?P<myriad>[万萬億亿])?"
)
_MYRIADS = {"万": 10**4, "萬": 10**4, "億": 10**8, "亿": 10**8}
_MINUS = str.maketrans(dict.fromkeys("−–﹣‐‑", "-") | {"٫": ".", "٬": ",", "⁄": "/"})
_SUPERSCRIPTS = re.compile("[²³¹⁰⁴-⁹]+")


def extract_decimal(text: str, language: str = "en") -> Decimal | None:
    """The number that a text gives as its answer; None where it gives none.

    Looked for in this order: the first number behind `####`; the first number behind the last phrase such as
    "the answer is"; the last number of the text.

    Args:
        text: what a model wrote.
        language: decides only what `1.234` and `1,234` mean.
    """
    plain = _plain(text)
    marker = plain.find("####")
    if marker >= 0:
        found = _numbers(plain[marker + 4 :].lstrip("# "), language, first=True)
        if found is not None:
            return found
    for phrase in reversed(list(_PHRASE.finditer(plain))):
        found = _numbers(plain[phrase.end() :], language, first=True)
        if found is not None:
            return found
    return _numbers(plain, language, first=False)


def extract_numeric_answer(text: str, language: str = "en") -> float | None:
    """As `extract_decimal`, as a float; a number too large for one is infinite."""
    found = extract_decimal(text, language)
    return None if found is None else float(found)


def same_answer(text: str, gold: str, language: str = "en") -> bool:
    """Whether a text's answer is the same number as the gold answer (which is written the English way)."""
    expected = extract_decimal(gold)
    return expected is not None and extract_decimal(text, language) == expected


def _plain(text: str) -> str:
    """NFKC, every script's digits as 0-9, one kind of minus and of space."""
    text = unicodedata.normalize("NFKC", _SUPERSCRIPTS.sub("", text).translate(_MINUS)).translate(_MINUS)
    return "".join(
        str(unicodedata.decimal(character)) if character.isdecimal() else " " if character.isspace() else character
        for character in text
    )


def _numbers(text: str, language: str, *, first: bool) -> Decimal | None:
    found: Decimal | None = None
    for match in _NUMBER.finditer(text):
        value = _value(match, text, language)
        if value is None:
            continue
        found = value
        if first:
            break
    return found


def _value(match: re.Match[str], text: str, language: str) -> Decimal | None:
    try:
        value = Decimal(_english(match["body"], language) + (match["exponent"] or ""))
        if match["below"] is not None:
            if "." in match["body"] or not int(match["below"]):
                return None
            value /= Decimal(match["below"])
    except (InvalidOperation, OverflowError):
        return None
    if match["myriad"]:
        value *= _MYRIADS[match["myriad"]]
    negative = match["sign2"] == "-" or (match["sign"] == "-" and not _is_operator(text, match.start("sign")))
    return -value if negative else value


def _is_operator(text: str, place: int) -> bool:
    """A minus behind a digit, a closing bracket or a letter is a subtraction or a hyphen, not a sign."""
    before = text[:place].rstrip(" ")
    if not before:
        return False
    touching = before == text[:place]
    return before[-1].isdigit() or before[-1] in ")]%" or (touching and before[-1].isalpha())


def _english(body: str, language: str) -> str:
    """A number's text with groups joined and a point before its decimals."""
    body = re.sub(rf"[{_GROUP_SPACES}'’]", "", body)
    points, commas = body.count("."), body.count(",")
    if points and commas:
        decimal = max(body.rfind("."), body.rfind(","))
        whole, part = body[:decimal], body[decimal + 1 :]
        if body[decimal] in whole:  # 1,234.567,890: groups on both sides of a lone other mark cannot be read
            return re.sub("[.,]", "", body)
        return re.sub("[.,]", "", whole) + "." + part
    mark = "." if points else ","
    if not points and not commas:
        return body
    pieces = body.split(mark)
    grouped = bool(pieces[0]) and len(pieces[-1]) == 3 and all(len(piece) in (2, 3) for piece in pieces[1:])
    decimal_mark = "," if language in DECIMAL_COMMA else "."
    if len(pieces) > 2:
        return "".join(pieces) if grouped else ".".join(["".join(pieces[:-1]), pieces[-1]])
    if mark != decimal_mark and grouped and len(pieces[0]) <= 3 and pieces[0] != "0":
        return "".join(pieces)
    return ".".join(pieces)


# As lm-evaluation-harness scores gsm8k: two filters, then an exact match of what is left of both texts.

INVALID = "[invalid]"
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = (r",", r"\$", r"(?s).*#### ", r"\.$")


def lm_eval_strict(text: str) -> str:
    """The first `#### number`; INVALID without one."""
    found = _STRICT.search(text)
    return found[1].strip() if found else INVALID


def lm_eval_flexible(text: str) -> str:
    """The last run that may be a number; INVALID without one."""
    found = _FLEXIBLE.findall(text)
    return next(group for group in found[-1] if group).strip() if found else INVALID


def lm_eval_match(extracted: str, gold: str) -> bool:
    """Whether the harness's exact_match counts an extracted answer as the gold text's."""
    for pattern in _IGNORED:
        extracted, gold = re.sub(pattern, "", extracted), re.sub(pattern, "", gold)
    return extracted.lower() == gold.lower()

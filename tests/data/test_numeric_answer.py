"""Answers as people and models write them, and the harness's way of scoring with its traps."""

from __future__ import annotations

from decimal import Decimal

import pytest

from data.numeric_answer import (
    INVALID,
    extract_decimal,
    extract_numeric_answer,
    lm_eval_flexible,
    lm_eval_match,
    lm_eval_strict,
    same_answer,
)

AWKWARD = [
    ("#### 42", "42", "en"),
    ("The answer is #### 42", "42", "en"),
    ("####18", "18", "en"),
    ("#### $18", "18", "en"),
    ("#### -7", "-7", "en"),
    ("#### 109,200,000", "109200000", "en"),
    ("#### 12\nQuestion: how many are 99?", "12", "en"),
    ("The answer is 42", "42", "en"),
    ("the answer is: 42.", "42", "en"),
    ("The answer is 18. The answer is 20.", "20", "en"),
    ("Answer: 7 apples out of 12", "7", "en"),
    ("42", "42", "en"),
    ("3.14", "3.14", "en"),
    ("-10", "-10", "en"),
    ("29.00", "29", "en"),
    ("5 ...", "5", "en"),
    ("5...", "5", "en"),
    ("18 000", "18000", "en"),
    ("18\u00a0000", "18000", "fr"),
    ("18\u202f000,50", "18000.50", "fr"),
    ("1 234 567", "1234567", "en"),
    ("5 6", "6", "en"),
    ("18 0000", "0", "en"),
    ("10-3", "3", "en"),
    ("10 - 3", "3", "en"),
    ("10-3=7", "7", "en"),
    ("(10)-3", "3", "en"),
    ("3 - -4", "-4", "en"),
    ("x = -4", "-4", "en"),
    ("covid-19", "19", "en"),
    ("1.234,50", "1234.50", "de"),
    ("1.234,50", "1234.50", "en"),
    ("1,234.50", "1234.50", "en"),
    ("1,234.50", "1234.50", "de"),
    ("1.234", "1.234", "en"),
    ("1.234", "1234", "de"),
    ("1,234", "1234", "en"),
    ("1,234", "1.234", "de"),
    ("3,5", "3.5", "fr"),
    ("3,5", "3.5", "en"),
    ("0,125", "0.125", "en"),
    ("1.234.567", "1234567", "en"),
    ("12,34,567", "1234567", "bn"),
    ("1'234'567.8", "1234567.8", "en"),
    ("1_000_000", "1000000", "en"),
    ("$1,000.", "1000", "en"),
    ("-$5", "-5", "en"),
    ("$-5", "-5", "en"),
    ("€ 7,50", "7.50", "de"),
    ("₹500", "500", "en"),
    ("50%", "50", "en"),
    ("50 % of 80 is 40", "40", "en"),
    ("−5", "-5", "en"),
    ("–5", "-5", "en"),
    ("１８", "18", "ja"),
    ("－５", "-5", "ja"),
    ("答えは18です。", "18", "ja"),
    ("答えは１，２３４です。", "1234", "ja"),
    ("答案是 18。", "18", "zh"),
    ("答案是 8万", "80000", "zh"),
    ("উত্তর ১৮", "18", "bn"),
    ("คำตอบคือ ๑๘", "18", "th"),
    ("సమాధానం ౧౮", "18", "te"),
    ("Die Antwort lautet 1.500 Euro", "1500", "de"),
    ("Ответ — 18.", "18", "ru"),
    ("Jibu ni 18.", "18", "sw"),
    ("La respuesta es 18", "18", "es"),
    ("La réponse est 18,5", "18.5", "fr"),
    ("\\boxed{-12}", "-12", "en"),
    ("3/4", "0.75", "en"),
    ("½", "0.5", "en"),
    ("1.5e3", "1500", "en"),
    ("12 m²", "12", "en"),
    (".5", "0.5", "en"),
    ("**18**", "18", "en"),
    ("<<9*2=18>>18 dollars", "18", "en"),
    ("٣٤", "34", "en"),
    ("007", "7", "en"),
]
NO_ANSWER = ["", "...", "eighteen", "-", "$", ",", "####", "#### none", "The answer is", "1/0", "\x00", "NaN", "inf"]


def test_the_table_is_long_enough() -> None:
    assert len(AWKWARD) + len(NO_ANSWER) >= 60


@pytest.mark.parametrize(("text", "expected", "language"), AWKWARD)
def test_an_awkward_answer_is_read(text: str, expected: str, language: str) -> None:
    assert extract_decimal(text, language) == Decimal(expected)
    assert extract_numeric_answer(text, language) == float(expected)


@pytest.mark.parametrize("text", NO_ANSWER)
def test_a_text_without_a_number_has_no_answer(text: str) -> None:
    assert extract_decimal(text) is None
    assert extract_numeric_answer(text) is None
    assert not same_answer(text, "1")


def test_hostile_texts_take_no_time_and_raise_nothing() -> None:
    for text in ("9" * 100_000, "1," * 50_000, "-" * 100_000, "1 " * 50_000, "#### " * 20_000, "1e999", "1." * 50_000):
        extract_numeric_answer(text)


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("#### 18", "18", "18"),
        ("####18", INVALID, "18"),
        ("#### $18", INVALID, "$18"),
        ("18 000", INVALID, "000"),
        ("5 ...", INVALID, "..."),
        ("10-3", INVALID, "-3"),
        ("1.234,50", INVALID, "1.234,50"),
        ("no number", INVALID, INVALID),
        ("#### 1,000 and 7", "1,000", "7"),
    ],
)
def test_the_compatible_score_has_the_traps_of_the_harness(text: str, strict: str, flexible: str) -> None:
    assert lm_eval_strict(text) == strict
    assert lm_eval_flexible(text) == flexible


def test_the_compatible_match_drops_what_the_harness_drops() -> None:
    assert lm_eval_match("1,000", "so ... #### 1000")
    assert lm_eval_match("$18.", "18")
    assert not lm_eval_match("29.00", "29")
    assert not lm_eval_match(INVALID, "29")
    assert same_answer("29.00", "29")
    assert same_answer("1.234,00", "1,234", "de")

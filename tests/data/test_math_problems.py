"""GSM8K and MGSM as they are: gold answers round-trip, translations are the same problem, overlaps are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.corpus_error import CorpusError
from data.math_problems import (
    MGSM_LANGUAGES,
    MathProblem,
    OverlapError,
    ProblemSplits,
    held_out,
    item_hash,
    limited,
    load_gsm8k,
    load_mgsm,
    named_problems,
)
from data.numeric_answer import lm_eval_match, lm_eval_strict, same_answer

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
needs_data = pytest.mark.skipif(not (DATA / "gsm8k").is_dir(), reason="no ../shared/data/gsm8k beside the checkout")


def problem(question: str, number: int = 0) -> MathProblem:
    return MathProblem(question=question, answer="1", item=item_hash(question), source=f"test:{number}")


@needs_data
@pytest.mark.parametrize("split", ["train", "test"])
def test_gold_answers_of_gsm8k_round_trip(split: str) -> None:
    problems = load_gsm8k(split, DATA / "gsm8k")
    assert len(problems) == {"train": 7473, "test": 1319}[split]
    for entry in problems:
        assert same_answer(entry.solution, entry.answer), entry
        assert same_answer(f"The answer is {entry.answer}.", entry.answer), entry
        assert lm_eval_match(lm_eval_strict(entry.solution), entry.solution), entry


@needs_data
@pytest.mark.parametrize("language", MGSM_LANGUAGES)
def test_gold_answers_of_mgsm_round_trip_and_are_the_first_rows_of_gsm8k(language: str) -> None:
    problems = load_mgsm(language, DATA / "mgsm")
    originals = load_gsm8k("test", DATA / "gsm8k")
    assert len(problems) == 250
    for entry, original in zip(problems, originals, strict=False):
        assert entry.item == original.item
        assert same_answer(entry.answer, entry.answer)
        assert same_answer(original.solution, entry.answer), entry


@needs_data
def test_evolving_on_gsm8k_test_and_reporting_on_mgsm_is_refused() -> None:
    test, train = named_problems("gsm8k:test", DATA), named_problems("gsm8k:train", DATA)
    kept, promote = held_out(train, 0.05, 0)
    with pytest.raises(OverlapError, match="evolve and report share 250 problems: gsm8k:test:0 is mgsm:ja:0"):
        ProblemSplits(evolve=test, promote=promote, report=named_problems("mgsm:ja", DATA))
    rest = named_problems("gsm8k:test[250:]", DATA)
    assert len(rest) == 1069
    ProblemSplits(evolve=rest, promote=promote, report=named_problems("mgsm:ja", DATA))
    ProblemSplits(evolve=kept, promote=promote, report=named_problems("mgsm:te", DATA))


def test_splits_are_refused_when_empty_or_equal_up_to_layout() -> None:
    with pytest.raises(OverlapError, match="promote and report share 1 problems"):
        ProblemSplits(evolve=[problem("a")], promote=[problem("How many?")], report=[problem("how MANY ?", 1)])
    with pytest.raises(CorpusError, match="the promote split holds no problems"):
        ProblemSplits(evolve=[problem("a")], promote=[], report=[problem("b")])


def test_holding_out_and_limiting_are_keyed_and_complete() -> None:
    problems = [problem(f"question {n}", n) for n in range(100)]
    kept, out = held_out(problems, 0.2, 3)
    assert len(out) == 20
    assert sorted(entry.source for entry in kept + out) == sorted(entry.source for entry in problems)
    assert held_out(problems, 0.2, 3) == (kept, out)
    assert held_out(problems, 0.2, 4)[1] != out
    few = limited(problems, 7, 1)
    assert len(few) == 7
    assert [problems.index(entry) for entry in few] == sorted(problems.index(entry) for entry in few)
    assert limited(problems, None, 1) == problems


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda folder: load_gsm8k("tset", folder), ["no split 'tset'", "'test'"]),
        (lambda folder: load_mgsm("jp", folder), ["no language 'jp'", "ja"]),
        (lambda folder: load_gsm8k("test", folder / "absent"), ["cannot be read"]),
        (lambda folder: named_problems("gsm9k:test", folder), ["unknown problems 'gsm9k:test'", "mgsm:<language>"]),
        (lambda folder: load_gsm8k("test", folder), ["row 0", "not a JSON object"]),
        (lambda folder: load_gsm8k("train", folder), ["row 0", "####"]),
        (lambda folder: load_mgsm("en", folder), ["row 0", "question, tab, answer"]),
    ],
)
def test_wrong_problems_are_refused_in_a_sentence(call: object, parts: list[str], tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text("not json\n")
    (tmp_path / "train.jsonl").write_text('{"question": "q", "answer": "7"}\n')
    (tmp_path / "mgsm_en.tsv").write_text("no tab\n")
    with pytest.raises(CorpusError) as caught:
        call(tmp_path)  # type: ignore[operator]
    for part in parts:
        assert part in str(caught.value)

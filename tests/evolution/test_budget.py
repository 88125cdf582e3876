"""Budgets: the worst case before a call, what was used after it, and enough set aside for a verdict."""

from __future__ import annotations

import pytest

from evolution.budget import MESSAGE_TOKENS, Budget, BudgetSpent, session_seconds, worst_prompt_tokens
from evolution.proposer_config import BudgetSection, PriceSection
from evolution.proposers.client import Answer
from evolution.proposers.prompt import Prompt

PROMPT = Prompt(system="s" * 36, user="u" * 900)
PRICE = PriceSection(prompt=1.0, completion=10.0)


def answer(prompt: int | None = 100, completion: int | None = 50, error: str | None = None) -> Answer:
    text = None if error else "text"
    return Answer(text=text, error=error, prompt_tokens=prompt, completion_tokens=completion, seconds=1.0)


def test_the_worst_case_bounds_any_tokeniser() -> None:
    assert worst_prompt_tokens(PROMPT) == 36 + 900 + MESSAGE_TOKENS
    assert worst_prompt_tokens(Prompt(system="", user="é" * 10)) == 20 + MESSAGE_TOKENS


def test_a_call_is_refused_before_it_could_pass_the_token_budget() -> None:
    budget = Budget(BudgetSection(llm_tokens=2000))
    budget.check_call(PROMPT, 1000, None)
    with pytest.raises(BudgetSpent, match=r"llm_tokens=2,000: 0 are spent and the next call could take 2,001"):
        budget.check_call(PROMPT, 1001, None)
    budget.charge(PROMPT, answer(), 1000, None)
    with pytest.raises(BudgetSpent, match="150 are spent"):
        budget.check_call(PROMPT, 1000, None)
    assert budget.spent.tokens == 150
    assert budget.spent.dollars is None
    assert budget.spent.unpriced == 1


def test_dollars_follow_the_price_and_an_unknown_price_is_refused() -> None:
    budget = Budget(BudgetSection(dollars=0.012))
    budget.check_call(PROMPT, 1000, PRICE)
    with pytest.raises(BudgetSpent, match="no price"):
        budget.check_call(PROMPT, 1000, None)
    budget.charge(PROMPT, answer(), 1000, PRICE)
    assert budget.spent.dollars == pytest.approx(100 / 1e6 + 500 / 1e6)
    budget.charge(PROMPT, answer(1000, 100), 1000, PRICE)
    with pytest.raises(BudgetSpent, match=r"the next call could cost \$0.0110"):
        budget.check_call(PROMPT, 1000, PRICE)


@pytest.mark.parametrize(
    ("error", "charged"),
    [
        (None, True),
        ("TimeoutError: no complete reply within 5 s", True),
        ("InternalServerError: 500", False),
        ("RateLimitError: 429", False),
        ("APIConnectionError: refused", False),
    ],
)
def test_usage_that_is_not_reported_is_charged_in_full_unless_the_endpoint_refused(
    error: str | None, charged: bool
) -> None:
    budget = Budget(BudgetSection(llm_tokens=2999))
    budget.charge(PROMPT, answer(None, None, error), 1000, None)
    assert budget.spent.unreported == 1
    assert budget.spent.tokens == 0
    if charged:
        with pytest.raises(BudgetSpent, match="2,000 are spent"):
            budget.check_call(PROMPT, 1000, None)
    else:
        budget.check_call(PROMPT, 1000, None)


def test_seconds_of_earlier_sessions_count_and_what_is_left_is_told() -> None:
    now = [100.0]
    budget = Budget(BudgetSection(seconds=50), earlier_seconds=20, clock=lambda: now[0])
    assert budget.check_call(PROMPT, 10, None) == pytest.approx(30)
    now[0] = 129.5
    with pytest.raises(BudgetSpent, match=r"budget\.seconds=50: 50 s are spent"):
        budget.check_call(PROMPT, 10, None, uses_llm=False)
    events = [("run_started", 10.0), ("reply", 14.0), ("run_started", 100.0), ("reply", 103.0)]
    assert session_seconds(events) == 7.0
    assert session_seconds([]) == 0.0


def test_training_tokens_leave_what_is_set_aside_and_evaluations_are_counted() -> None:
    budget = Budget(BudgetSection(training_tokens=1000, evaluations=2), set_aside=700)
    budget.check_candidate(200)
    budget.charge_candidate(200)
    with pytest.raises(BudgetSpent, match="200 are spent, a candidate takes 200 and 700 are set aside"):
        budget.check_candidate(200)
    budget.check_candidate(100)
    budget.charge_candidate(100)
    with pytest.raises(BudgetSpent, match=r"budget\.evaluations=2"):
        budget.check_candidate(0)

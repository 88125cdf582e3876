"""What a run may still spend: checked before each call and each candidate, with the worst that it can cost.

Choices:
- A prompt has at most as many tokens as bytes, a reply at most `max_tokens`. So a call is refused while
  some budget is left, and the budget is passed only by an endpoint that does not keep to its limit.
- A call that reports no usage is charged the worst case; one that the endpoint refused is charged nothing.
  Reports show what was reported, and how often nothing was.
- Training tokens for the later stages and the confirmation are set aside before the first candidate: a
  search that ends early still ends in a verdict.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from evolution.proposer_config import BudgetSection, PriceSection
from evolution.proposers.client import Answer, is_unbilled
from evolution.proposers.price import dollars
from evolution.proposers.prompt import Prompt

MESSAGE_TOKENS = 64
"""For the roles and separators of two messages."""
LEAST_SECONDS = 1.0
"""Less time than this is not worth a call."""


class BudgetSpent(Exception):  # noqa: N818  (not an error: a search may end so)
    """The search ends here; the message says which budget, what is spent and what the next step could cost."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a run has used so far, for views.

    Attributes:
        calls: asked for.
        unreported: calls whose usage nobody reported.
        tokens: as reported.
        dollars: of the calls whose usage and price are known; None while there is none.
        unpriced: calls with usage but without a price.
    """

    calls: int
    unreported: int
    tokens: int
    dollars: float | None
    unpriced: int


class Budget:
    """The account of one run.

    Args:
        section: the limits.
        set_aside: training tokens that the search may not touch.
        earlier_seconds: wall seconds of the sessions before this one.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        section: BudgetSection,
        *,
        set_aside: int = 0,
        earlier_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._section = section
        self._set_aside = set_aside
        self._clock = clock
        self._began = clock() - earlier_seconds
        self._charged_tokens = 0
        self._charged_dollars = 0.0
        self._training_tokens = 0
        self._evaluations = 0
        self._calls = self._unreported = self._reported_tokens = self._priced = self._unpriced = 0
        self._reported_dollars = 0.0

    @property
    def spent(self) -> Spent:
        """What was used so far."""
        return Spent(
            calls=self._calls,
            unreported=self._unreported,
            tokens=self._reported_tokens,
            dollars=self._reported_dollars if self._priced else None,
            unpriced=self._unpriced,
        )

    def check_call(
        self, prompt: Prompt, max_tokens: int, price: PriceSection | None, *, uses_llm: bool = True
    ) -> float | None:
        """Refuse a call whose worst case is too much; without an LLM only time is looked at.

        Returns:
            Seconds that are left for it; None without a limit.

        Raises:
            BudgetSpent: tokens, dollars or seconds do not suffice.
        """
        if not uses_llm:
            return self._seconds_left()
        section = self._section
        worst = worst_prompt_tokens(prompt)
        if section.llm_tokens is not None and self._charged_tokens + worst + max_tokens > section.llm_tokens:
            raise BudgetSpent(
                f"budget.llm_tokens={section.llm_tokens:,}: {self._charged_tokens:,} are spent and the next call "
                f"could take {worst + max_tokens:,}"
            )
        if section.dollars is not None:
            if price is None:
                raise BudgetSpent("budget.dollars is set and this proposer has no price; state one under its 'price'")
            cost = dollars(price, worst, max_tokens)
            if self._charged_dollars + cost > section.dollars:
                raise BudgetSpent(
                    f"budget.dollars={section.dollars:g}: ${self._charged_dollars:.4f} are spent and the next call "
                    f"could cost ${cost:.4f}"
                )
        return self._seconds_left()

    def charge(self, prompt: Prompt, answer: Answer, max_tokens: int, price: PriceSection | None) -> None:
        """Book a call to an LLM that was made, now or in an earlier session."""
        self._calls += 1
        known = answer.prompt_tokens is not None and answer.completion_tokens is not None
        if known:
            read, written = answer.prompt_tokens or 0, answer.completion_tokens or 0
            self._reported_tokens += read + written
            if price is None:
                self._unpriced += 1
            else:
                self._priced += 1
                self._reported_dollars += dollars(price, read, written)
        else:
            self._unreported += 1
            read, written = (0, 0) if is_unbilled(answer.error) else (worst_prompt_tokens(prompt), max_tokens)
        self._charged_tokens += read + written
        if price is not None:
            self._charged_dollars += dollars(price, read, written)

    def check_candidate(self, tokens: int) -> None:
        """Refuse a candidate whose training would touch what is set aside.

        Raises:
            BudgetSpent: training tokens or evaluations do not suffice.
        """
        section = self._section
        if section.evaluations is not None and self._evaluations >= section.evaluations:
            raise BudgetSpent(f"budget.evaluations={section.evaluations:,}: so many candidates were measured")
        limit = section.training_tokens
        if limit is not None and self._training_tokens + tokens + self._set_aside > limit:
            raise BudgetSpent(
                f"budget.training_tokens={limit:,}: {self._training_tokens:,} are spent, a candidate takes {tokens:,} "
                f"and {self._set_aside:,} are set aside for what follows the search"
            )

    def charge_candidate(self, tokens: int) -> None:
        """Book the training of a candidate."""
        self._evaluations += 1
        self._training_tokens += tokens

    def _seconds_left(self) -> float | None:
        limit = self._section.seconds
        if limit is None:
            return None
        used = self._clock() - self._began
        if used + LEAST_SECONDS > limit:
            raise BudgetSpent(f"budget.seconds={limit:g}: {used:.0f} s are spent")
        return limit - used


def worst_prompt_tokens(prompt: Prompt) -> int:
    """Most tokens a prompt can have: every token stands for a byte at least."""
    return len(prompt.system.encode()) + len(prompt.user.encode()) + MESSAGE_TOKENS


def session_seconds(events: Sequence[tuple[str, float]]) -> float:
    """Wall seconds that the sessions on record took: from each start to its last event.

    Args:
        events: (kind, time) of every event, in order.
    """
    total, began, last = 0.0, None, 0.0
    for kind, moment in events:
        if kind == "run_started":
            if began is not None:
                total += max(0.0, last - began)
            began = moment
        last = moment
    return total + (max(0.0, last - began) if began is not None else 0.0)


def stop_payload(spent: BudgetSpent, iteration: int) -> dict[str, Any]:
    """The ledger's decision that ends a search."""
    return {"what": "budget", "reason": f"The search ended at iteration {iteration}: {spent}.", "iteration": iteration}

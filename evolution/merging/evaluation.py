"""Scores candidates on problems: by block of problems, raced, and never twice.

The problems are cut into blocks. Each block of a candidate is one run in the ledger, keyed by (candidate,
problems, how), and holds right or wrong for every problem, so a resumed search finds it there. A
candidate whose chance to reach the best one is gone after some blocks (its interval lies below) is
not asked the rest; it keeps the share it has, which ranks it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from analysis.calibration import wilson_interval
from data.math_problems import MathProblem
from evolution.ledger import Ledger
from evolution.ledger.payload import canonical_json
from evolution.merging.candidate import CandidateModels, MergeCandidate
from frameworks.merging.merge_error import MergeError

Correct = Callable[[Any, Sequence[MathProblem]], list[float]]
"""(model, problems) -> a score in [0, 1] for each: 1 and 0 for right and wrong, or a proxy."""


class Models(Protocol):
    """Where runnable candidates come from."""

    def model(self, candidate: MergeCandidate) -> Any:
        """A model; MergeError where it cannot be made."""
        ...


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a candidate came to.

    Attributes:
        fitness: mean score; None: it failed.
        scores: one for each problem that was asked.
        raced_out: whether the rest was not asked because it could not win.
        reason: why it failed; empty otherwise.
    """

    fitness: float | None
    scores: tuple[float, ...] = ()
    raced_out: bool = False
    reason: str = ""


class Evaluation:
    """Asks candidates the problems of one split.

    Args:
        ledger: where runs are kept.
        models: makes candidates runnable.
        correct: scores a model.
        how: names what decides a score beside candidate and problems (model family, decoding); part of every key.
        problems: of the split.
        purpose: `search`, or `confirmation` for the report split.
        seed: recorded with each run; confirmation seeds are of their own range.
        block: problems in a block.
        racing: whether hopeless candidates are stopped.

    Attributes:
        computed: blocks that were computed; the rest was on record.
    """

    def __init__(
        self,
        ledger: Ledger,
        models: CandidateModels | Models,
        correct: Correct,
        *,
        how: str,
        problems: Sequence[MathProblem],
        purpose: str,
        seed: int,
        block: int = 64,
        racing: bool = False,
    ) -> None:
        self._ledger = ledger
        self._models = models
        self._correct = correct
        self._how = how
        self._purpose = purpose
        self._seed = seed
        self._racing = racing
        # one block where nothing is raced: a confirmation is one run
        size = block if racing else max(1, len(problems))
        self._blocks = [problems[start : start + size] for start in range(0, len(problems), size)]
        self._leader = 0.0
        self.computed = 0

    def __call__(self, candidate: MergeCandidate) -> Score:
        """Score a candidate; a failure is a score without fitness, never an exception."""
        identity = candidate.identity
        self._ledger.record_once("candidate", {"content": candidate.content, "kind": "merge"}, identity)
        model: Any = None
        scores: list[float] = []
        for number, block in enumerate(self._blocks):
            key, spec = self._run(identity, number, block)
            outcome = self._ledger.outcome(key)
            if outcome is None:
                outcome, model = self._compute(candidate, model, block)
                self._ledger.commit_run(key, spec, outcome)
                self.computed += 1
            if outcome["status"] != "completed":
                return Score(fitness=None, reason=str(outcome.get("reason", outcome["status"])))
            scores += [float(value) for value in outcome["scores"]]
            if self._hopeless(scores, number):
                return Score(fitness=sum(scores) / len(scores), scores=tuple(scores), raced_out=True)
        fitness = sum(scores) / len(scores)
        self._leader = max(self._leader, fitness)
        return Score(fitness=fitness, scores=tuple(scores))

    def _run(self, identity: str, number: int, block: Sequence[MathProblem]) -> tuple[str, dict[str, Any]]:
        items = hashlib.sha256(canonical_json({"items": [p.source + p.question for p in block]}).encode()).hexdigest()
        spec = {
            "candidate": identity,
            "purpose": self._purpose,
            "seed": self._seed,
            "size": f"block {number}",
            "corpus_hash": items,
            "eval_split": "confirmation_test" if self._purpose == "confirmation" else "search_validation",
            "how": self._how,
        }
        return hashlib.sha256(canonical_json(spec).encode()).hexdigest(), spec

    def _compute(
        self, candidate: MergeCandidate, model: Any, block: Sequence[MathProblem]
    ) -> tuple[dict[str, Any], Any]:
        try:
            if model is None:
                model = self._models.model(candidate)
            scores = self._correct(model, block)
        except (MergeError, RuntimeError, ValueError, ArithmeticError) as error:
            return {"status": "crashed", "reason": f"{type(error).__name__}: {error}"[:500]}, None
        if not all(math.isfinite(score) for score in scores):
            return {"status": "diverged", "reason": "a score is not finite"}, None
        return {"status": "completed", "scores": [float(score) for score in scores]}, model

    def _hopeless(self, scores: Sequence[float], number: int) -> bool:
        if not self._racing or number + 1 == len(self._blocks):
            return False
        return wilson_interval(round(sum(scores)), len(scores)).high < self._leader


def benchmark_scores(tokenizer: Any, config: Any, examples: Sequence[MathProblem] = ()) -> Correct:
    """Real fitness: 1 for a right answer; `config` is a `benchmarks.BenchmarkConfig`."""
    from evolution.merging.benchmarks import answer_problems

    def correct(model: Any, problems: Sequence[MathProblem]) -> list[float]:
        return [float(answer.correct) for answer in answer_problems(model, tokenizer, problems, config, examples)]

    return correct


def proxy_scores(tokenizer: Any, batch_size: int = 64) -> Correct:
    """Proxy fitness: the probability per token of the gold answer, exp(-mean loss); no decoding."""
    import torch
    from torch.nn import functional as F  # noqa: N812

    from evolution.merging.benchmarks import prompt_text

    def correct(model: Any, problems: Sequence[MathProblem]) -> list[float]:
        scores: list[float] = []
        tokenizer.padding_side = "right"
        with torch.inference_mode():
            for start in range(0, len(problems), batch_size):
                batch = problems[start : start + batch_size]
                prompts = [prompt_text(problem, ()) for problem in batch]
                answers = [
                    f"{int(problem.answer):02d};" if problem.skill else f" {problem.solution or problem.answer}"
                    for problem in batch
                ]
                whole = tokenizer(
                    [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)],
                    return_tensors="pt",
                    padding=True,
                    return_token_type_ids=False,
                )
                lengths = [len(tokenizer(prompt)["input_ids"]) for prompt in prompts]
                logits = model(**whole).logits[:, :-1]  # (B, T - 1, V)
                targets = whole["input_ids"][:, 1:]
                losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")  # (B, T - 1)
                for row, length in enumerate(lengths):
                    counted = whole["attention_mask"][row, 1:].bool().clone()
                    counted[: length - 1] = False
                    scores.append(float(torch.exp(-losses[row][counted].mean())))
        return scores

    return correct

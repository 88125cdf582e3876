"""Scoring candidates: blocks, racing, failures, and that nothing on record is computed again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from data.math_problems import MathProblem, item_hash
from evolution.ledger import Ledger, SealError
from evolution.merging.candidate import MergeCandidate, copy_of
from evolution.merging.evaluation import Evaluation, Score
from evolution.merging.evolution_config import EvolutionConfig
from evolution.merging.hybrid import Found, Sources, search_at_random, search_parameter_space
from evolution.merging.parameter_space import ParameterSpace
from frameworks.merging.merge_error import MergeError

PROBLEMS = [
    MathProblem(question=f"question {n}", answer="1", item=item_hash(f"question {n}"), source=f"test:{n}")
    for n in range(100)
]


class FakeModels:
    """A model is its recipes; one named `bad` cannot be made."""

    def __init__(self) -> None:
        self.made = 0

    def model(self, candidate: MergeCandidate) -> Any:
        self.made += 1
        recipe = candidate.recipes[0]
        assert recipe.models is not None
        if recipe.models[0].model == "bad":
            raise MergeError("cannot be merged")
        return recipe


def by_name(recipe: Any, problems: Sequence[MathProblem]) -> list[float]:
    """Right as often as the model's name says; `nan` gives no number, `boom` raises."""
    name = recipe.models[0].model
    if name == "boom":
        raise RuntimeError("shapes differ")
    if name == "nan":
        return [float("nan")] * len(problems)
    return [float(int(hashlib.sha256(p.question.encode()).hexdigest(), 16) % 100 < int(name)) for p in problems]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite", create=True) as opened:
        yield opened


def evaluation(ledger: Ledger, models: Any, **more: Any) -> Evaluation:
    given = {"how": "test", "problems": PROBLEMS, "purpose": "search", "seed": 1, "block": 20, "racing": True}
    return Evaluation(ledger, models, by_name, **(given | more))


def candidate(name: str) -> MergeCandidate:
    return MergeCandidate(recipes=(copy_of(name),))


def test_a_candidate_that_cannot_win_is_not_asked_the_rest(ledger: Ledger) -> None:
    evaluate = evaluation(ledger, FakeModels())
    strong, weak = evaluate(candidate("90")), evaluate(candidate("10"))
    assert not strong.raced_out
    assert len(strong.scores) == 100
    assert weak.raced_out
    assert len(weak.scores) == 20
    assert strong.fitness is not None
    assert weak.fitness is not None
    assert weak.fitness < strong.fitness
    assert len(evaluation(ledger, FakeModels(), racing=False)(candidate("10")).scores) == 100


def test_what_is_on_record_is_not_computed_again(ledger: Ledger) -> None:
    first = evaluation(ledger, FakeModels())
    scores = [first(candidate(name)) for name in ("90", "10", "bad", "50")]
    assert first.computed > 0
    models = FakeModels()
    again = evaluation(ledger, models)
    assert [again(candidate(name)) for name in ("90", "10", "bad", "50")] == scores
    assert again.computed == 0
    assert models.made == 0
    assert ledger.integrity() == []


@pytest.mark.parametrize(
    ("name", "reason"), [("bad", "cannot be merged"), ("boom", "shapes differ"), ("nan", "finite")]
)
def test_a_failure_is_recorded_with_its_reason_and_is_no_number(ledger: Ledger, name: str, reason: str) -> None:
    score = evaluation(ledger, FakeModels())(candidate(name))
    assert score.fitness is None
    assert reason in score.reason
    assert ledger.runs()[-1].outcome["status"] in ("crashed", "diverged")


def test_the_report_split_is_sealed_until_a_plan_is_opened(ledger: Ledger) -> None:
    report = evaluation(ledger, FakeModels(), purpose="confirmation", seed=20_000, racing=False)
    with pytest.raises(SealError):
        report(candidate("50"))
    one, other = candidate("50").identity, candidate("60").identity
    key = ledger.declare_plan({"reference": one, "shortlist": [other], "seeds": [20_000], "sizes": ["block 0"]})
    ledger.open_seal(key)
    assert report(candidate("50")).fitness is not None
    with pytest.raises(SealError):
        report(candidate("70"))


def found(ledger: Ledger, evaluate: Any, **more: Any) -> Found:
    config = EvolutionConfig(merge_method="linear", num_generations=6, population_size=8, seed=3, **more)
    sources = Sources(base=None, models=("x", "y"), n_layers=2)
    return search_parameter_space(config, sources, evaluate, lambda *event: None)


@pytest.mark.parametrize("use_cmaes", [True, False])
def test_a_search_goes_on_when_merges_fail_and_repeats_nothing(ledger: Ledger, use_cmaes: bool) -> None:
    def near(recipe: Any, problems: Sequence[MathProblem]) -> list[float]:
        one, other = (section.parameters.weight for section in recipe.models)
        if one > 0.75:
            raise RuntimeError("does not merge")
        share = 1 - abs(one - 0.6) - abs(other - 0.3)
        return [float(n < share * len(problems)) for n in range(len(problems))]

    given: dict[str, Any] = {"how": "near", "problems": PROBLEMS, "purpose": "search", "seed": 1, "block": 100}
    evaluate = Evaluation(ledger, FakeModels(), near, **given)
    first = found(ledger, evaluate, use_cmaes=use_cmaes)
    assert first.failures > 0
    assert first.ranked[0][1] > 0.85
    assert evaluate.computed > 0
    again = Evaluation(ledger, FakeModels(), near, **given)
    assert found(ledger, again, use_cmaes=use_cmaes) == first
    assert again.computed == 0


def test_random_search_spends_what_it_is_given_and_total_failure_is_an_error(ledger: Ledger) -> None:
    config = EvolutionConfig(merge_method="linear", seed=3)
    sources = Sources(base=None, models=("x", "y"), n_layers=2)
    given: dict[str, Any] = {"how": "n", "problems": PROBLEMS, "purpose": "search", "seed": 1}
    fine = Evaluation(ledger, FakeModels(), lambda model, problems: [1.0] * len(problems), **given)
    assert search_at_random(config, sources, fine, lambda *event: None, 20).evaluations == 20
    given["how"] = "broken"
    broken = Evaluation(ledger, FakeModels(), lambda model, problems: [float("nan")], **given)
    with pytest.raises(MergeError, match="all 20 candidates failed"):
        search_at_random(config, sources, broken, lambda *event: None, 20)


def test_nsga_ii_finds_the_front_and_survives_failures() -> None:
    from evolution.merging.multi_objective import ParetoSearch, front_of, objectives_of, run_pareto

    groups = ["a"] * 50 + ["b"] * 50

    def trade(chosen: MergeCandidate) -> Score:
        assert chosen.recipes[0].models is not None
        one, other = (float(section.parameters.weight or 0) for section in chosen.recipes[0].models)  # type: ignore[arg-type]
        if one > 0.9:
            return Score(fitness=None, reason="does not merge")
        # the first group is answered with the first weight, the second with what it leaves; the other weight costs both
        shares = (one * (1 - other), (1 - one) * (1 - other))
        scores = [float(n < 50 * share) for share in shares for n in range(50)]
        return Score(fitness=sum(scores) / 100, scores=tuple(scores))

    space = ParameterSpace(merge_method="linear", base_model=None, models=("x", "y"), n_layers=2)

    def run() -> Any:
        search = ParetoSearch(n_dimensions=2, n_objectives=2, population_size=16, seed=1)
        return run_pareto(
            search, lambda v: MergeCandidate(recipes=(space.decode(v),)), trade, groups, 12, lambda *event: None
        )

    front, evaluations, failures = run()
    assert evaluations == 16 * 12
    assert failures > 0
    assert len(front) >= 5
    assert all(sum(row) > 0.85 for _, row in front)
    assert run()[0] == front
    assert front_of([*front, (candidate("1"), [0.0, 0.0])]) == front
    assert objectives_of(Score(fitness=None), groups) is None

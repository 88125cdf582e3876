"""What a merge evolution is told to have found: the champion against every other arm on the sealed problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.calibration import wilson_interval
from analysis.paired_proportions import mcnemar, relative_gain
from evolution.merging.evaluation import Score
from evolution.merging.evolution_config import EvolutionConfig
from evolution.merging.hybrid import Found
from frameworks.merging.merge_error import MergeError

ALPHA = 0.01


def compare(stage: str, scores: Mapping[str, Score], random: np.random.Generator, target: float) -> dict[str, Any]:
    """The champion against every arm, on the same problems.

    Args:
        stage: the champion's arm.
        scores: arm -> its score on the report split.
        random: of the bootstrap.
        target: relative gain over the best source that is looked for.

    Raises:
        MergeError: the champion, or every source, could not be evaluated.
    """
    if scores[stage].fitness is None:
        raise MergeError(f"the champion failed on the report split: {scores[stage].reason}")
    right = {
        name: [value > 0.5 for value in score.scores] for name, score in scores.items() if score.fitness is not None
    }
    sources = [name for name in right if name.startswith("source ")]
    if not sources:
        raise MergeError("no source could be evaluated on the report split")
    best = max(sources, key=lambda name: sum(right[name]))
    arms: dict[str, Any] = {}
    for name, score in scores.items():
        if name not in right:
            arms[name] = {"accuracy": None, "reason": score.reason}
            continue
        rate = wilson_interval(sum(right[name]), len(right[name]))
        test = mcnemar(right[stage], right[name])
        arms[name] = {
            "accuracy": sum(right[name]) / len(right[name]),
            "low": rate.low,
            "high": rate.high,
            "only_champion": test.only_first,
            "only_this": test.only_second,
            "mcnemar_p": test.p,
        }
    gain = relative_gain(right[stage], right[best], random)
    judged = [name for name in (best, "uniform soup", "default ties") if name in right]
    beaten = [n for n in judged if arms[n]["mcnemar_p"] < ALPHA and arms[n]["only_champion"] > arms[n]["only_this"]]
    return {
        "arms": arms,
        "best_source": best,
        "champion": stage,
        "beaten": beaten,
        "judged": judged,
        "decision": "promoted" if len(beaten) == len(judged) else "not promoted",
        "fitness_improvement": gain.value,
        "fitness_improvement_low": gain.low,
        "fitness_improvement_high": gain.high,
        "target_fitness_gain": target,
        "target_reached": gain.value is not None and gain.value >= target,
        "problems": len(right[stage]),
    }


def metrics_of(
    *,
    config: EvolutionConfig,
    names: Mapping[str, str],
    parent_fitness: Mapping[str, float | None],
    found: Sequence[Found],
    champion_stage: str,
    promote: Mapping[str, float | None],
    comparison: Mapping[str, Any],
) -> dict[str, Any]:
    """All figures of a run, plain JSON; the specification's names among them."""
    by_stage = {result.stage: result for result in found}
    first = found[0]
    kept = first.ranked[: config.ps_candidates_multiplier * len(parent_fitness)]
    fitness = [value for _, value in kept]
    champion = by_stage[champion_stage].ranked[0][1]
    usable = [value for value in parent_fitness.values() if value is not None]
    return {
        "mode": config.mode,
        "fitness": "accuracy" if config.use_real_fitness else "probability of the gold answer",
        "names": dict(names),
        "n_base_models": len(parent_fitness),
        "parent_fitness": dict(parent_fitness),
        "baseline_fitness": max(usable),
        "n_ps_candidates": len(fitness),
        "ps_candidates_fitness": fitness,
        "ps_best_fitness": fitness[0],
        "ps_mean_fitness": sum(fitness) / len(fitness),
        "champion_fitness": champion,
        "fitness_gain": champion / max(usable) - 1.0 if max(usable) > 0 else None,
        "promote_fitness": dict(promote),
        "searches": [
            {
                "stage": result.stage,
                "evaluations": result.evaluations,
                "failures": result.failures,
                "stopped": result.stopped,
                "history": list(result.history),
                "front": [list(row) for row in result.front],
            }
            for result in found
        ],
        "report": dict(comparison),
        "fitness_improvement": comparison["fitness_improvement"],
        "sentence": sentence(comparison),
    }


def sentence(comparison: Mapping[str, Any]) -> str:
    """The verdict in words."""
    arms = comparison["arms"]
    champion, best = arms[comparison["champion"]], arms[comparison["best_source"]]
    missed = [name for name in comparison["judged"] if name not in comparison["beaten"]]
    told = (
        f"{comparison['decision']}: {comparison['champion']} answers {champion['accuracy']:.1%} of "
        f"{comparison['problems']} sealed problems, the best source {best['accuracy']:.1%}"
    )
    if missed:
        told += f"; McNemar's test does not separate it from {' and '.join(missed)} at p < {ALPHA:g}"
    return told + "."


def table(metrics: Mapping[str, Any]) -> list[str]:
    """Lines for a terminal: an arm a line, then improvement and target."""
    report = metrics["report"]
    lines = [f"{'arm':<16} accuracy    95 % interval     McNemar p   (report split, {report['problems']} problems)"]
    for name, arm in report["arms"].items():
        if arm["accuracy"] is None:
            lines.append(f"{name:<16} failed: {arm['reason']}")
            continue
        mark = "  <- champion" if name == report["champion"] else ""
        p = "" if mark else f"{arm['mcnemar_p']:.2g}"
        lines.append(f"{name:<16} {arm['accuracy']:7.1%}   [{arm['low']:.1%}, {arm['high']:.1%}]   {p:>9}{mark}")
    gain, low, high = (report[f"fitness_improvement{end}"] for end in ("", "_low", "_high"))
    if gain is None:
        lines.append("fitness_improvement: unknown, the best source answers nothing")
    else:
        reached = "reached" if report["target_reached"] else "not reached"
        lines.append(
            f"fitness_improvement {gain:+.1%} [{low:+.1%}, {high:+.1%}] over the best source; "
            f"the target {report['target_fitness_gain']:.1%} is {reached}"
        )
    return lines

"""A race replayed on a table of real learning curves: does it end where training everything ends, and at what cost?

Rungs stand in the table: every seed at every size, cheap to dear, with a look at half of each run's horizon.
A look may eliminate only where its fidelity, measured on the table, is high enough. All candidates
run a rung before any goes to the next, as in the later stages of a search.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from analysis.learning_curves import CurveTable
from evolution.config import RacingSection
from evolution.racing import Race, Rung


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Result of `replay_race`.

    Attributes:
        winner: candidate the race picked.
        full_winner: candidate that full training of everything picks.
        regret: mean loss of `winner` minus that of `full_winner` in the whole table, averaged over sizes, nats.
        p_worse: one-sided paired t over seeds that `winner` is worse; 1.0 for the same candidate.
        tokens: training tokens the race spent, the reference's included.
        share: `tokens` over those of training every arm at every size and seed.
        stopped: candidates by the rule that stopped them.
    """

    winner: str
    full_winner: str
    regret: float
    p_worse: float
    tokens: int
    share: float
    stopped: dict[str, int]

    def equal(self, alpha: float = 0.05) -> bool:
        """Whether the winner is that of full training, or not shown to be worse than it at the level."""
        return self.winner == self.full_winner or self.p_worse >= alpha


def rungs_of(table: CurveTable) -> list[Rung]:
    """The rungs of a table in order, each with its measured fidelity: Kendall's tau of the score there with the final.

    Sizes come in the order of a run's training tokens, which is what the budget counts, then of parameters.
    """
    names = sorted(table.sizes, key=lambda name: (table.sizes[name].tokens, table.sizes[name].n_parameters))
    rungs: list[Rung] = []
    for seed in range(len(table.seeds)):
        for name in names:
            curves = table.sizes[name]
            middle = int(np.searchsorted(curves.steps, curves.steps[-1] / 2))
            before = 0
            for step in sorted({int(curves.steps[middle]), int(curves.steps[-1])}):
                tokens = (step - before) * curves.tokens_per_step
                rungs.append(Rung(size=name, seed=seed, step=step, tokens=tokens, fidelity=0.0))
                before = step
    from analysis.rank_fidelity import kendall_tau

    final = np.array(list(full_scores(table).values()))
    race = Race(RacingSection(), rungs)
    taus: list[float] = []
    for rung in rungs:
        for candidate in table.candidates[1:]:
            race.note(candidate, difference_at(table, candidate, rung))
        scores = [race.score(candidate, len(taus)) for candidate in table.candidates[1:]]
        tau = kendall_tau(np.array(scores), final)
        taus.append(tau if math.isfinite(tau) else -1.0)
    return [dataclasses.replace(rung, fidelity=tau) for rung, tau in zip(rungs, taus, strict=True)]


def difference_at(table: CurveTable, candidate: str, rung: Rung) -> float:
    """Candidate minus reference loss at a rung, nats."""
    curves = table.sizes[rung.size]
    step = int(np.flatnonzero(curves.steps == rung.step)[0])
    losses = curves.losses[:, rung.seed, step]
    return float(losses[table.candidates.index(candidate)] - losses[0])


def full_scores(table: CurveTable) -> dict[str, float]:
    """Mean over sizes and seeds of candidate minus reference at the full horizon, by candidate, nats."""
    gaps = np.mean([table.finals(size) - table.finals(size)[0] for size in table.sizes], axis=0)  # (C, S)
    return dict(zip(table.candidates[1:], (float(gap) for gap in gaps[1:].mean(axis=1)), strict=True))


def replay_race(table: CurveTable, section: RacingSection, rungs: list[Rung]) -> Replay:
    """Race the candidates of a table; a budget in `section` ends the race with the best so far.

    Raises:
        ValueError: the budget does not pay for the first rung of the reference and one candidate.
    """
    race = Race(section, rungs)
    alive, spent, last = list(table.candidates[1:]), 0, -1
    stopped: dict[str, int] = {}
    for index, rung in enumerate(rungs):
        # Nothing is left to compare, or the budget does not pay for the whole rung.
        cost = rung.tokens * (len(alive) + 1)
        if len(alive) == 1 or (section.budget_tokens is not None and spent + cost > section.budget_tokens):
            break
        spent, last = spent + cost, index
        for candidate in alive:
            race.note(candidate, difference_at(table, candidate, rung))
        stops = {candidate: race.judge(candidate) for candidate in alive if candidate != race.best(index)}
        for stop in stops.values():
            if stop is not None:
                stopped[stop.rule] = stopped.get(stop.rule, 0) + 1
        alive = [candidate for candidate in alive if stops.get(candidate) is None]
    if last < 0:
        raise ValueError(
            f"racing.budget_tokens={section.budget_tokens} does not pay for the first rung, which costs "
            f"{rungs[0].tokens * len(table.candidates):,} training tokens for {len(table.candidates)} arms"
        )
    winner = min(alive, key=lambda name: (race.score(name, last), name))
    scores = full_scores(table)
    best = min(scores, key=lambda name: (scores[name], name))
    return Replay(
        winner=winner,
        full_winner=best,
        regret=scores[winner] - scores[best],
        p_worse=_p_worse(table, winner, best),
        tokens=spent,
        share=spent / table.full_tokens,
        stopped=stopped,
    )


def _p_worse(table: CurveTable, winner: str, best: str) -> float:
    from analysis.paired_tests import paired_t

    if winner == best:
        return 1.0
    ours, theirs = table.candidates.index(winner), table.candidates.index(best)
    gaps = np.mean([table.finals(size)[ours] - table.finals(size)[theirs] for size in table.sizes], axis=0)
    return paired_t(gaps, alternative="greater").p


def resampled(table: CurveTable, rng: np.random.Generator, *, share: float = 0.8) -> CurveTable:
    """A table like this one: a share of its candidates in random order, with seeds redrawn.

    A curve is its candidate's mean over seeds, plus what a seed does to all arms alike, plus what it does to this arm
    alone. Both are drawn with replacement from the seeds there are, the first once for all arms, the second for each
    arm, as whole runs over all sizes and steps, and scaled by sqrt(S / (S - 1)).
    """
    n = len(table.seeds)
    kept = rng.permutation(np.arange(1, len(table.candidates)))[: max(1, round(share * (len(table.candidates) - 1)))]
    rows = np.concatenate([[0], kept])
    common_seeds = rng.integers(0, n, size=n)
    own_seeds = rng.integers(0, n, size=(rows.size, n))
    grow = math.sqrt(n / (n - 1))
    sizes = {}
    for name, curves in table.sizes.items():
        means = curves.losses.mean(axis=1, keepdims=True)  # (C, 1, E)
        common = (curves.losses - means).mean(axis=0)  # (S, E)
        own = curves.losses - means - common  # (C, S, E)
        drawn = np.stack([own[row, seeds] for row, seeds in zip(rows, own_seeds, strict=True)])
        losses = means[rows] + grow * (common[common_seeds] + drawn)
        sizes[name] = dataclasses.replace(curves, losses=losses)
    return CurveTable(
        candidates=tuple(table.candidates[row] for row in rows),
        seeds=table.seeds,
        sizes=sizes,
        provenance=table.provenance,
    )

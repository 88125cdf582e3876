"""Racing: a candidate is measured in rungs and stopped as soon as the evidence says that it cannot win.

A rung is one more piece of a candidate's measurement: a size, a seed, and how far that run has gone.
Three things can stop a candidate, each with its reason:

- a sequential paired test says that it is worse than the reference, or than the current best;
- it does not clear the hurdle, which the population sets: only the best share of those that
  reached a rung go on (progressive dynamic hurdles, So et al. 2019).

What protects it: a rung may eliminate only where its ranking is known to agree with the final one
(Kendall's tau at least `least_fidelity`), declared or measured on candidates that went all the way. At
200 steps of the demo ladder linear attention leads, at 800 it loses: such a rung eliminates nobody.
The test speaks about whole seeds (every size), since a lead at one size is not a lead at another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evolution.config import RacingSection


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One more piece of a candidate's measurement.

    Attributes:
        size: name of the size.
        seed: index of the paired seed.
        step: how far the run of this size and seed has gone after this rung.
        tokens: training tokens this rung adds.
        fidelity: Kendall's tau of the ranking at this rung with the final one; None: measured in the race.
    """

    size: str
    seed: int
    step: int
    tokens: int
    fidelity: float | None = None


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Why a candidate is not measured further: `rule` is "reference", "best" or "hurdle"; a sentence for people."""

    rule: str
    reason: str


@dataclass(kw_only=True)
class _Track:
    """Paired differences of one candidate by rung, nats."""

    differences: list[float] = field(default_factory=list)
    stopped: Stop | None = None


class Race:
    """The population's measurements by rung, and who may go on.

    Args:
        section: the rules.
        rungs: every candidate's rungs in order; the last ends the race.

    Raises:
        ValueError: no rung.
    """

    def __init__(self, section: RacingSection, rungs: Sequence[Rung]) -> None:
        if not rungs:
            raise ValueError("a race needs at least one rung")
        self._section = section
        self._rungs = tuple(rungs)
        self._tracks: dict[str, _Track] = {}

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """The rungs in order."""
        return self._rungs

    def note(self, candidate: str, difference: float) -> None:
        """Enter a candidate's difference to the reference at its next rung, nats, negative is better.

        Raises:
            ValueError: a difference that is not finite, a candidate that was stopped or has run all rungs.
        """
        track = self._tracks.setdefault(candidate, _Track())
        if not math.isfinite(difference):
            raise ValueError(f"candidate {candidate!r}: difference {difference!r}; a failed run is not a number")
        if track.stopped is not None or len(track.differences) == len(self._rungs):
            raise ValueError(f"candidate {candidate!r} is out of the race; nothing more can be noted")
        track.differences.append(float(difference))

    def score(self, candidate: str, rung: int) -> float:
        """Mean over sizes of the mean over seeds of the newest difference of each run, up to a rung (0-based)."""
        return self._score(self._tracks[candidate].differences[: rung + 1])

    def reached(self, rung: int) -> list[str]:
        """Candidates measured at a rung (0-based), in the order they entered."""
        return [name for name, track in self._tracks.items() if len(track.differences) > rung]

    def best(self, rung: int, besides: str | None = None) -> str | None:
        """The candidate with the lowest score at a rung; None where nobody else reached it."""
        names = [name for name in self.reached(rung) if name != besides]
        return min(names, key=lambda name: (self.score(name, rung), name)) if names else None

    def fidelity(self, rung: int) -> float | None:
        """Kendall's tau of a rung with the last one: declared, or over candidates that went all the way."""
        declared = self._rungs[rung].fidelity
        if declared is not None:
            return declared
        last = len(self._rungs) - 1
        finished = self.reached(last)
        if len(finished) < self._section.least_finished:
            return None
        from analysis.rank_fidelity import kendall_tau

        tau = kendall_tau(*(np.array([self.score(name, at) for name in finished]) for at in (rung, last)))
        return tau if math.isfinite(tau) else None

    def judge(self, candidate: str) -> Stop | None:
        """Whether a candidate stops after its newest rung; remembered. The last rung stops nobody."""
        track = self._tracks[candidate]
        rung = len(track.differences) - 1
        if rung == len(self._rungs) - 1:
            return None
        tau = self.fidelity(rung)
        if tau is None or tau < self._section.least_fidelity:
            return None
        track.stopped = self._worse(candidate, rung) or self._below_hurdle(candidate, rung, tau)
        return track.stopped

    def _worse(self, candidate: str, rung: int) -> Stop | None:
        from analysis.pooled_sequential import is_worse

        mine = self._by_seed(candidate, rung)
        sd = self._noise(rung)
        if not mine:
            return None
        alpha = self._section.alpha
        if is_worse(list(mine.values()), sd=sd, alpha=alpha):
            mean = math.fsum(mine.values()) / len(mine)
            return Stop(
                rule="reference",
                reason=f"worse than the reference by {mean:.4f} nats over {len(mine)} seeds "
                f"(sequential test, {alpha:g})",
            )
        leader = self.best(rung, besides=candidate)
        theirs = {} if leader is None else self._by_seed(leader, rung)
        gaps = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
        # The best of many was lucky too: its level is shared among all it was chosen from.
        if gaps and is_worse(gaps, sd=sd, alpha=alpha / (len(self.reached(rung)) - 1)):
            return Stop(
                rule="best",
                reason=f"worse than the best so far by {math.fsum(gaps) / len(gaps):.4f} nats over {len(gaps)} seeds "
                f"(sequential test, {alpha:g})",
            )
        return None

    def _below_hurdle(self, candidate: str, rung: int, tau: float) -> Stop | None:
        names = self.reached(rung)
        if len(names) < self._section.least_population:
            return None
        scores = sorted(self.score(name, rung) for name in names)
        kept = max(self._section.least_kept, math.ceil(self._section.keep * len(scores)))
        if kept >= len(scores):
            return None
        hurdle, score = scores[kept - 1], self.score(candidate, rung)
        if score <= hurdle:
            return None
        at = self._rungs[rung]
        return Stop(
            rule="hurdle",
            reason=f"at size {at.size}, seed {at.seed}, step {at.step} its difference of {score:+.4f} nats does not "
            f"clear the hurdle {hurdle:+.4f} of {len(scores)} candidates (Kendall tau with the end {tau:.2f})",
        )

    def _latest(self, differences: Sequence[float]) -> dict[tuple[str, int], float]:
        """Newest difference by (size, seed)."""
        return {(at.size, at.seed): value for at, value in zip(self._rungs, differences, strict=False)}

    def _score(self, differences: Sequence[float]) -> float:
        by_size: dict[str, list[float]] = {}
        for (size, _), value in self._latest(differences).items():
            by_size.setdefault(size, []).append(value)
        return math.fsum(math.fsum(values) / len(values) for values in by_size.values()) / len(by_size)

    def _by_seed(self, candidate: str, rung: int) -> dict[int, float]:
        """Size-averaged difference of every seed whose runs at all sizes are at their end by this rung."""
        ends = {(at.size, at.seed): index for index, at in enumerate(self._rungs)}
        found = self._latest(self._tracks[candidate].differences[: rung + 1])
        sizes = {at.size for at in self._rungs}
        complete: dict[int, float] = {}
        for seed in {at.seed for at in self._rungs}:
            cells = [(size, seed) for size in sizes]
            if all(cell in ends and ends[cell] <= rung and cell in found for cell in cells):
                complete[seed] = math.fsum(found[cell] for cell in cells) / len(cells)
        return complete

    def _noise(self, rung: int) -> float:
        """Spread of size-averaged differences over seeds, pooled over candidates; the configured one until known."""
        from analysis.pooled_sequential import pooled_sd

        groups: Mapping[str, list[float]] = {
            name: list(self._by_seed(name, rung).values()) for name in self.reached(rung)
        }
        sd, freedom = pooled_sd(group for group in groups.values() if group)
        return sd if freedom >= self._section.least_freedom and sd > 0 else self._section.noise_sd

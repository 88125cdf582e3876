"""`evoscale bench racing`: races replayed on resamples of the table of real learning curves."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from data.keyed_random import numpy_generator
from experiments.benches.registry import Options
from experiments.benches.row import Row, Targets


def measure(options: Options, targets: Targets) -> Iterator[Row]:
    """Rows: the table, how often the race is right, what it costs, and what a plain short run would pick."""
    from experiments.benches.demo_curves import demo_curves, missing

    told = missing()
    if told is not None:
        yield targets.row("candidates in the table", None, f"candidates ({told})")
        return
    from evolution.config import RacingSection
    from evolution.race_replay import replay_race, resampled, rungs_of

    table = demo_curves()
    yield targets.row(
        "candidates in the table",
        len(table.candidates) - 1,
        f"beside the reference, {len(table.sizes)} sizes, {len(table.seeds)} seeds",
    )
    rungs, section = rungs_of(table), RacingSection()
    for rung in rungs[: 2 * len(table.sizes)]:
        may = "may" if (rung.fidelity or 0.0) >= section.least_fidelity else "may not"
        yield targets.row(
            f"fidelity after {rung.size} step {rung.step}", rung.fidelity, f"Kendall tau with the end; {may} eliminate"
        )
    replays = 20 if options.quick else 200
    races = []
    for index in range(replays):
        drawn = resampled(table, numpy_generator("bench", "racing", index))
        races.append(replay_race(drawn, section, rungs))
    equal = sum(race.equal() for race in races) / replays
    same = sum(race.winner == race.full_winner for race in races) / replays
    yield targets.row(
        "replays that pick the winner or its statistical equal",
        equal,
        f"share of {replays} (the same winner in {same:.3f}; mean regret "
        f"{1e3 * statistics.fmean(race.regret for race in races):.2f}e-3 nats, worst "
        f"{1e3 * max(race.regret for race in races):.2f}e-3)",
    )
    shares = [race.share for race in races]
    yield targets.row(
        "training tokens, median share of full training", statistics.median(shares), f"share (most {max(shares):.3f})"
    )

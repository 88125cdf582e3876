"""`evoscale bench verdicts`: how often the statistics are wrong, simulated; nulls carry the noise of real runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from data.keyed_random import numpy_generator
from experiments.benches.registry import Options
from experiments.benches.row import Row, Targets

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALPHA = 0.05
"""Level of the sequential and the power rows; promotions use the plan's own level."""


def measure(options: Options, targets: Targets) -> Iterator[Row]:
    """Rows of error rates: false promotions, peeking, power, coverage of scaling fits."""
    yield from _false_promotions(options, targets)
    yield from _peeking(options, targets)
    yield from _power(options, targets)
    yield from _coverage(options, targets)


def _false_promotions(options: Options, targets: Targets) -> Iterator[Row]:
    from analysis.null_searches import noise_of, simulate_null_searches
    from experiments.benches.demo_curves import demo_curves
    from experiments.benches.demo_curves import missing as missing_table

    told = missing_table()
    name = "false promotions, searches of 40 nulls"
    if told is not None:
        yield targets.row(name, None, f"share of searches ({told})")
        return
    noise = noise_of(demo_curves())
    searches = 100 if options.quick else 2_000
    result = simulate_null_searches(noise, rng=numpy_generator("bench", "verdicts", "nulls"), n_searches=searches)
    rate, naive = result.two_stage, result.naive_best
    yield targets.row(
        name,
        rate.rate,
        f"share of {searches} searches ({rate.low:.4f} to {rate.high:.4f}; noise of {len(noise)} runs)",
    )
    yield targets.row("upper end of its interval", rate.high, "share of searches")
    yield targets.row(
        "best of 40 on its search seeds, same searches",
        naive.rate,
        f"share of searches ({naive.low:.4f} to {naive.high:.4f})",
    )
    if result.naive_tested is not None:
        tested = result.naive_tested
        yield targets.row(
            "best of 40 with an uncorrected t test, same searches",
            tested.rate,
            f"share of searches ({tested.low:.4f} to {tested.high:.4f})",
        )


def _peeking(options: Options, targets: Targets) -> Iterator[Row]:
    """A look after every seed, up to 40 seeds: how often does a null reach the level?"""
    from analysis.calibration import wilson_interval
    from analysis.paired_tests import paired_t
    from analysis.sequential import sequential_t

    sequences, longest = (60, 20) if options.quick else (2_000, 40)
    rng = numpy_generator("bench", "verdicts", "peeking")
    always_valid = naive = 0
    for values in rng.standard_normal((sequences, longest)):
        always_valid += sequential_t(values, alpha=ALPHA).decided_at is not None
        naive += any(paired_t(values[:n]).p < ALPHA for n in range(2, longest + 1))
    rate, plain = (wilson_interval(count, sequences) for count in (always_valid, naive))
    yield targets.row(
        "type-I error of the sequential test, a look after every seed",
        rate.rate,
        f"share of {sequences} nulls of {longest} seeds ({rate.low:.4f} to {rate.high:.4f}; level {ALPHA})",
    )
    yield targets.row("the same looks with a plain t test", plain.rate, "share of nulls")


def _power(options: Options, targets: Targets) -> Iterator[Row]:
    from analysis.paired_tests import paired_t
    from analysis.power import paired_power

    trials = 500 if options.quick else 20_000
    rng = numpy_generator("bench", "verdicts", "power")
    found = sum(paired_t(values, alternative="less").p < ALPHA for values in rng.standard_normal((trials, 10)) - 1.0)
    theory = paired_power(-1.0, 10, alpha=ALPHA, alternative="less")
    share = found / trials
    yield targets.row(
        "power at d_z = 1 with 10 seeds, distance from theory",
        abs(share - theory) * 100,
        f"points ({share:.4f} of {trials} simulated, {theory:.4f} in theory)",
    )


def _coverage(options: Options, targets: Targets) -> Iterator[Row]:
    """Do the 90 % intervals of E, A and alpha hold the truth in 90 of 100 ladders?"""
    from analysis.power_law import fit_power_law
    from analysis.scaling_laws import bootstrap_curves

    sizes: NDArray[np.float64] = np.array([0.5, 1.0, 2.0, 4.0, 8.0]) * 1e6
    offset, alpha = 1.2, 0.34
    amplitude = 1.1 * 1e6**alpha
    truth = {"offset": offset, "amplitude": amplitude, "alpha": alpha}
    ladders, seeds, resamples = (2 if options.quick else 500), 6, 300
    fits: list[float] = []
    for sd in (0.003, 0.01):
        rng = numpy_generator("bench", "verdicts", "scaling", str(sd))
        held = dict.fromkeys(truth, 0)
        for _ in range(ladders):
            losses = offset + amplitude * sizes**-alpha + sd * rng.standard_normal((seeds, sizes.size))
            began = time.process_time()
            fit_power_law(sizes, losses)
            fits.append(time.process_time() - began)
            curve = bootstrap_curves(sizes, {"arm": losses}, rng=rng, n_resamples=resamples)["arm"]
            for name, interval in curve.parameters(confidence=0.9).items():
                held[name] += interval.low <= truth[name] <= interval.high
        for name, count in held.items():
            share, row = count / ladders, f"coverage of {name}, seed sd {sd}, distance from 90 %"
            yield targets.row(row, abs(share - 0.9) * 100, f"points ({share:.3f} of {ladders} ladders, {seeds} seeds)")
    yield targets.row("one scaling fit, median", float(np.median(fits)), "s of CPU")
    began = time.process_time()
    bootstrap_curves(sizes, {"arm": losses}, rng=rng, n_resamples=1_000)
    yield targets.row("a bootstrap of 1,000 resamples", time.process_time() - began, "s of CPU")

"""Known controls through the real pipeline: does it conclude what it must?

Cheats must be rejected before any training. The null (the reference in other words), the
sprinter (leads early, loses at the full horizon) and the positive controls run through
the same plan, seal, runs and verdicts as any shortlist. A control that ends otherwise
than its label says is misranked, and the calibration says so first.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolution.calibration_record import record_calibration
from evolution.config import EvolveConfig
from evolution.confirmation import confirm, make_plan
from evolution.engine import Listener
from evolution.session import LEDGER_NAME, Bench, Request, check_request, load_run_corpus, manifest_of, open_bench
from evolution.stages import Stage

if TYPE_CHECKING:
    from analysis.error_rates import ErrorRates
    from frameworks.attention.controls.registry import Control
    from frameworks.program import Program

SPRINTER = "linear_attention"
SPRINT_STEPS = 200
"""Horizon at which the sprinter is known to lead at the smallest demo size."""


@dataclass(frozen=True, kw_only=True)
class ControlResult:
    """What the pipeline concluded of one control.

    Attributes:
        name, kind, summary: the control.
        expected: what it must conclude; `concluded`: what it did.
        reason: the guard's or the verdict's sentence.
        evidence: numbers, plain JSON.
    """

    name: str
    kind: str
    summary: str
    expected: str
    concluded: str
    reason: str
    evidence: Mapping[str, Any]

    @property
    def right(self) -> bool:
        """Whether the pipeline concluded what it must."""
        return self.expected == self.concluded


@dataclass(frozen=True, kw_only=True)
class Sprint:
    """The sprinter at a short horizon: paired differences to the reference in nats, negative is better."""

    control: str
    size: str
    steps: int
    mean_difference: float
    sd: float
    p_one_sided: float
    n_pairs: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The controls' results, the sprinter's early lead, and error rates of the set-up; None: not measured."""

    framework: str
    results: tuple[ControlResult, ...]
    sprint: Sprint | None
    rates: ErrorRates | None = None

    @property
    def misranked(self) -> tuple[ControlResult, ...]:
        """Controls that ended otherwise than they must."""
        return tuple(result for result in self.results if not result.right)


def calibrate(
    config: EvolveConfig, runs: Path, *, thorough: bool = False, listener: Listener | None = None
) -> Calibration:
    """Send a framework's controls through guards and confirmation: cheats, null, sprinter and positive ones.

    Args:
        config: as for an evolution; iterations and proposer are not used.
        runs: folder of all runs.
        thorough: also the other controls whose conclusion is known.
        listener: called with (event, payload) as things happen.

    Raises:
        ValueError: anything wrong with the request, before anything is written.
    """
    from evolution.ledger import Ledger

    listen: Listener = listener or (lambda event, payload: None)
    request = check_request(config)
    corpus = load_run_corpus(config, request.ladder, listen)
    directory = runs / request.name
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger.open(directory / LEDGER_NAME, create=True))
        manifest = manifest_of(request, corpus, None, kind="calibrate")
        ledger.record("run_started", manifest)
        listen("started", {"manifest": manifest, "directory": str(directory), "resumed": False, "request": request})
        bench = stack.enter_context(open_bench(request, directory, ledger, corpus, listen))
        return _calibrate(request, bench, thorough, listen)


def _calibrate(request: Request, bench: Bench, thorough: bool, listen: Listener) -> Calibration:
    from frameworks.attention.controls.registry import controls

    results: list[ControlResult] = []
    confirmed: dict[str, tuple[Control, Program]] = {}
    for control in controls(request.framework.name):
        if control.expected == "any" or (control.kind == "honest" and control.name != SPRINTER and not thorough):
            continue
        program = control.program()
        rejection = bench.guarding.reject(program)
        if rejection is not None:
            results.append(_result(control, "rejected", rejection, {}))
        elif control.kind == "cheat":
            results.append(_result(control, "passed the guards", "no guard found the leak before training", {}))
        else:
            confirmed[program.identity] = (control, program)
            continue
        listen("control", {"result": results[-1]})
    sprint = _sprint(request, bench, confirmed)
    if sprint is not None:
        listen("sprint", {"sprint": sprint})
    if confirmed:
        results.extend(_confirm(request, bench, confirmed, listen))
    record_calibration(bench.ledger, results)
    return Calibration(
        framework=request.framework.name, results=tuple(results), sprint=sprint, rates=_rates(request, bench)
    )


def _rates(request: Request, bench: Bench) -> ErrorRates | None:
    """Error rates with the noise of the controls' confirmation runs; None where too few completed."""
    from analysis.error_rates import error_rates
    from data.keyed_random import numpy_generator

    section = request.config.confirmation
    runs = [
        {**{name: run.spec[name] for name in ("candidate", "size", "seed")}, "curve": run.outcome["curve"]}
        for run in bench.ledger.comparable_runs()
        if run.spec["purpose"] == "confirmation" and run.outcome["status"] == "completed"
    ]
    try:
        return error_rates(
            runs,
            rng=numpy_generator("calibrate", request.framework.name, request.config.seed),
            alpha=section.alpha,
            least_effect=section.least_effect,
            shortlist=section.shortlist,
        )
    except ValueError:
        return None


def _result(control: Control, concluded: str, reason: str, evidence: Mapping[str, Any]) -> ControlResult:
    return ControlResult(
        name=control.name,
        kind=control.kind,
        summary=control.summary,
        expected=control.expected,
        concluded=concluded,
        reason=reason,
        evidence=evidence,
    )


def _confirm(
    request: Request, bench: Bench, confirmed: Mapping[str, tuple[Control, Program]], listen: Listener
) -> list[ControlResult]:
    reference = request.framework.program()
    plan = make_plan(
        request.config.confirmation,
        reference.identity,
        list(confirmed),
        request.confirmation_sizes,
        bench.factory.confirmation_seeds(),
    )
    listen("confirmation", {"plan": plan.to_json()})
    programs = {identity: program for identity, (_, program) in confirmed.items()}
    verdicts = confirm(
        plan,
        programs | {reference.identity: reference},
        ledger=bench.ledger,
        measurement=bench.measurement,
        factory=bench.factory,
    )
    results = []
    for verdict in verdicts:
        control, _ = confirmed[verdict.candidate]
        results.append(_result(control, verdict.decision, verdict.sentence, verdict.to_json()["evidence"]))
        listen("control", {"result": results[-1]})
    return results


def _sprint(request: Request, bench: Bench, confirmed: Mapping[str, tuple[Control, Program]]) -> Sprint | None:
    """The sprinter's paired lead at the short horizon, on search seeds and the search split."""
    from analysis.paired_tests import paired_t

    sprinters = [(control, program) for control, program in confirmed.values() if control.name == SPRINTER]
    smallest = request.ladder.sizes[0]
    if not sprinters or smallest.steps <= SPRINT_STEPS:
        return None
    control, program = sprinters[0]
    reference = request.framework.program()
    stage = Stage(index=0, size=smallest.name, seeds=request.config.confirmation.seeds, keep=None, steps=SPRINT_STEPS)
    arms = {reference.identity: reference.source, program.identity: program.source}
    specs = {
        (identity, index): bench.factory.search(identity, stage, index)
        for identity in arms
        for index in range(stage.seeds)
    }
    outcomes = bench.measurement.gather((spec, arms[identity]) for (identity, _), spec in specs.items())
    losses = {}
    for key, spec in specs.items():
        outcome = outcomes[spec.key]
        if outcome.status != "completed":
            return None
        losses[key] = outcome.val_loss
    differences = [losses[program.identity, i] - losses[reference.identity, i] for i in range(stage.seeds)]
    test = paired_t(differences, alternative="less")
    return Sprint(
        control=control.name,
        size=smallest.name,
        steps=SPRINT_STEPS,
        mean_difference=test.mean,
        sd=test.sd,
        p_one_sided=test.p,
        n_pairs=len(differences),
    )

"""Real learning curves for studies of racing and error rates: many known candidates, all sizes, to the horizon.

The candidates are a framework's honest controls and its start block with one catalogue
operator each. Each passes the guards and is measured as in any search: the same ledger,
sandbox, seeds and split. The same command goes on where it was stopped, and a table can
be written at any time from the candidates that are complete.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.keyed_random import seed_of
from evolution.config import ConfigError, EvolveConfig
from evolution.engine import Listener
from evolution.session import LEDGER_NAME, Bench, Request, check_request, load_run_corpus, manifest_of, open_bench
from evolution.stages import Stage

if TYPE_CHECKING:
    from analysis.learning_curves import CurveTable
    from frameworks.program import Program
    from training.ladder import Ladder
    from training.outcome import Completed
    from training.run_spec import RunSpec

REFERENCE = "reference"
_FIRST = {"null": 0, "positive": 1, "honest": 2}


def curve_candidates(framework_name: str) -> dict[str, Program]:
    """Name to program: reference, null, positive and honest controls, then one catalogue operator each.

    Raises:
        UnknownFrameworkError: no framework of that name.
    """
    from evolution.proposers.operators.catalogue import operators_for
    from frameworks.attention.controls.registry import controls
    from frameworks.program import ProgramError
    from frameworks.registry import framework

    found = framework(framework_name)
    programs = {REFERENCE: found.program()}
    seen = {programs[REFERENCE].identity}
    honest = [entry for entry in controls(found.name) if entry.kind in _FIRST]
    for entry in sorted(honest, key=lambda entry: (_FIRST[entry.kind], entry.name)):
        programs[entry.name] = entry.program()
        seen.add(programs[entry.name].identity)
    for operator in operators_for(found.name):
        rng = random.Random(seed_of("curves", found.name, operator.name))
        block = operator.apply(found.start_block, found.name, rng)
        if block is None:
            continue
        try:
            program = found.program(block)
        except ProgramError:
            continue
        if program.identity not in seen:
            programs[f"operator:{operator.name}"] = program
            seen.add(program.identity)
    return programs


def evaluated_every(ladder: Ladder, steps: int) -> Ladder:
    """The ladder with an evaluation every `steps` steps at every size; what is trained stays the same.

    Raises:
        ConfigError: `steps` does not divide a size's horizon.
    """
    for size in ladder.all_sizes:
        if steps < 1 or size.steps % steps:
            raise ConfigError(f"--eval-every {steps} does not divide the {size.steps} steps of size {size.name}")
    changed = tuple(size.model_copy(update={"eval_every": steps}) for size in ladder.sizes)
    unseen = None if ladder.unseen is None else ladder.unseen.model_copy(update={"eval_every": steps})
    return ladder.model_copy(update={"sizes": changed, "unseen": unseen})


def collect_curves(
    config: EvolveConfig,
    runs: Path,
    *,
    seeds: int,
    eval_every: int,
    skip: Sequence[str] = (),
    limit: int | None = None,
    listener: Listener | None = None,
) -> CurveTable:
    """Measure every candidate at every size and seed; what the ledger holds is not measured again.

    Args:
        config: as for an evolution; iterations, stages and proposer are not used.
        runs: folder of all runs.
        seeds: paired search seeds at every size.
        eval_every: steps between evaluations.
        skip: names of candidates to leave out, such as slow ones.
        limit: at most so many candidates, the reference not counted.
        listener: called with (event, payload) as things happen.

    Returns:
        The candidates that completed every run; one that failed is left out and told as a `left_out` event.

    Raises:
        ValueError: anything wrong with the request, before anything is written.
        RuntimeError: the reference failed.
    """
    from evolution.ledger import Ledger

    listen: Listener = listener or (lambda event, payload: None)
    request = check_request(config)
    request = dataclasses.replace(request, ladder=evaluated_every(request.ladder, eval_every))
    programs = curve_candidates(request.framework.name)
    unknown = sorted(set(skip) - set(programs)) or sorted({REFERENCE} & set(skip))
    if unknown:
        allowed = ", ".join(list(programs)[1:])
        raise ConfigError(f"--skip {unknown[0]}: no candidate that can be skipped; allowed: {allowed}")
    kept = {name: program for name, program in programs.items() if name not in skip}
    kept = dict(list(kept.items())[: None if limit is None else limit + 1])
    corpus = load_run_corpus(config, request.ladder, listen)
    directory = runs / request.name
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger.open(directory / LEDGER_NAME, create=True))
        manifest = manifest_of(request, corpus, None, kind="curves")
        ledger.record("run_started", manifest)
        listen("started", {"manifest": manifest, "directory": str(directory), "resumed": False, "request": request})
        bench = stack.enter_context(open_bench(request, directory, ledger, corpus, listen))
        return _collect(request, bench, kept, seeds, listen)


def _collect(
    request: Request, bench: Bench, programs: Mapping[str, Program], seeds: int, listen: Listener
) -> CurveTable:
    stages = [
        Stage(index=index, size=size.name, seeds=seeds, keep=None, steps=None)
        for index, size in enumerate(request.ladder.all_sizes)
    ]
    complete: dict[str, dict[tuple[str, int], Completed]] = {}
    for done, (name, program) in enumerate(programs.items()):
        listen("curves_of", {"candidate": name, "done": done, "total": len(programs)})
        reason = None if name == REFERENCE else bench.guarding.reject(program)
        if reason is None:
            found, reason = _curves(bench, program, stages)
            if reason is None:
                complete[name] = found
                continue
        if name == REFERENCE:
            raise RuntimeError(f"the reference itself failed: {reason}")
        listen("left_out", {"candidate": name, "reason": reason})
    return _table(request, bench, programs, complete)


def _curves(
    bench: Bench, program: Program, stages: Sequence[Stage]
) -> tuple[dict[tuple[str, int], Completed], str | None]:
    """The completed runs by (size, seed), or why there are none."""
    from training.outcome import explain

    specs: dict[tuple[str, int], RunSpec] = {}
    for stage in stages:
        for index in range(stage.seeds):
            spec = bench.factory.search(program.identity, stage, index)
            specs[stage.size, spec.seed] = spec
    outcomes = bench.measurement.gather((spec, program.source) for spec in specs.values())
    found: dict[tuple[str, int], Completed] = {}
    for cell, spec in specs.items():
        outcome = outcomes[spec.key]
        if outcome.status != "completed":
            return {}, f"at size {cell[0]}, seed {cell[1]}: {explain(outcome)}"
        found[cell] = outcome
    return found, None


def _table(
    request: Request,
    bench: Bench,
    programs: Mapping[str, Program],
    complete: Mapping[str, Mapping[tuple[str, int], Completed]],
) -> CurveTable:
    from analysis.learning_curves import CurveTable, SizeCurves

    names = tuple(complete)
    seeds = tuple(sorted({seed for _, seed in complete[REFERENCE]}))
    sizes: dict[str, SizeCurves] = {}
    flops: dict[str, dict[str, int]] = {name: {} for name in names}
    for size in request.ladder.all_sizes:
        steps = [step for step, _, _ in complete[REFERENCE][size.name, seeds[0]].curve]
        losses = [[[loss for _, _, loss in complete[name][size.name, seed].curve] for seed in seeds] for name in names]
        sizes[size.name] = SizeCurves(
            steps=np.array(steps, dtype=np.int64),
            tokens_per_step=size.batch_size * size.seq_len,
            n_parameters=complete[REFERENCE][size.name, seeds[0]].n_parameters,
            losses=np.array(losses, dtype=np.float64),
        )
        for name in names:
            flops[name][size.name] = complete[name][size.name, seeds[0]].flops
    provenance: dict[str, Any] = {
        "framework": request.framework.name,
        "ladder": request.ladder.name,
        "corpus": bench.corpus.name,
        "corpus_hash": bench.corpus.hash,
        "split": "search_validation",
        "identities": {name: programs[name].identity for name in names},
        "flops": flops,
    }
    return CurveTable(candidates=names, seeds=seeds, sizes=sizes, provenance=provenance)

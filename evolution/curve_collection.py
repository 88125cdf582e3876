"""Real learning curves for studies of racing and error rates: many known candidates, all sizes, to the horizon.

The candidates are a framework's honest controls and its start block with one catalogue
operator each. Each passes the guards and is measured as in any search: the same ledger,
sandbox, seeds and split. The same command goes on where it was stopped, and a table can
be written at any time from the candidates that are complete.
"""

from __future__ import annotations

import dataclasses
import difflib
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
from evolution.stages import RunFactory, Stage

if TYPE_CHECKING:
    from analysis.learning_curves import CurveTable
    from data.corpus import Corpus
    from evolution.ledger import Ledger
    from frameworks.program import Program
    from training.ladder import Ladder
    from training.outcome import Completed, Outcome
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
    recorded: bool = False,
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
        recorded: measure nothing; take the candidates whose runs the ledger holds, also while another process measures.
        listener: called with (event, payload) as things happen.

    Returns:
        The candidates that completed every run; one that did not is left out and told as a `left_out` event.

    Raises:
        ValueError: anything wrong with the request, before anything is written.
        RuntimeError: the reference failed.
    """
    from evolution.ledger import Ledger
    from training.precision import choose_precision

    listen: Listener = listener or (lambda event, payload: None)
    request = check_request(config)
    request = dataclasses.replace(request, ladder=evaluated_every(request.ladder, eval_every))
    directory = runs / request.name
    if recorded and not (directory / LEDGER_NAME).exists():
        raise ConfigError(f"--recorded: {directory} holds no recorded runs; leave the option out to measure them")
    programs = _chosen(request.framework.name, skip, limit)
    corpus = load_run_corpus(config, request.ladder, listen)
    if recorded:
        precision, _ = choose_precision("cpu")
        factory = RunFactory(config, request.ladder, corpus, precision, "cpu")
        with Ledger.open(directory / LEDGER_NAME, read_only=True) as ledger:
            complete = _collect(_Recorded(ledger, factory), programs, request, seeds, listen)
    else:
        directory.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            ledger = stack.enter_context(Ledger.open(directory / LEDGER_NAME, create=True))
            manifest = manifest_of(request, corpus, None, kind="curves")
            ledger.record("run_started", manifest)
            listen("started", {"manifest": manifest, "directory": str(directory), "resumed": False, "request": request})
            bench = stack.enter_context(open_bench(request, directory, ledger, corpus, listen))
            complete = _collect(_Measured(bench), programs, request, seeds, listen)
    return _table(request, corpus, programs, complete)


def _chosen(framework_name: str, skip: Sequence[str], limit: int | None) -> dict[str, Program]:
    programs = curve_candidates(framework_name)
    unknown = sorted(set(skip) - set(programs)) or sorted({REFERENCE} & set(skip))
    if unknown:
        allowed = list(programs)[1:]
        near = difflib.get_close_matches(unknown[0], allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ConfigError(f"--skip {unknown[0]}: no such candidate{hint} Known: {', '.join(allowed)}")
    kept = [name for name in programs if name not in skip]
    return {name: programs[name] for name in kept[: None if limit is None else limit + 1]}


class _Measured:
    """Candidates go through the guards and are trained; what the ledger holds is taken from it."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.factory = bench.factory

    def reject(self, program: Program) -> str | None:
        """Why a guard refuses the program; None when none does."""
        return self._bench.guarding.reject(program)

    def outcomes(self, specs: Sequence[RunSpec], program: Program) -> dict[str, Outcome]:
        """Outcomes by key."""
        return self._bench.measurement.gather((spec, program.source) for spec in specs)


class _Recorded:
    """Only what the ledger holds."""

    def __init__(self, ledger: Ledger, factory: RunFactory) -> None:
        self._ledger = ledger
        self.factory = factory

    def reject(self, program: Program) -> str | None:
        """Nothing is guarded again: a run on record was guarded before it was made."""
        return None

    def outcomes(self, specs: Sequence[RunSpec], program: Program) -> dict[str, Outcome]:
        """Outcomes on record, by key."""
        from training.outcome import outcome_from_json

        stored = {spec.key: self._ledger.outcome(spec.key) for spec in specs}
        return {key: outcome_from_json(outcome) for key, outcome in stored.items() if outcome is not None}


def _collect(
    source: _Measured | _Recorded, programs: Mapping[str, Program], request: Request, seeds: int, listen: Listener
) -> dict[str, dict[tuple[str, int], Completed]]:
    """Candidates that completed every run, each with its runs by (size, seed)."""
    complete: dict[str, dict[tuple[str, int], Completed]] = {}
    for done, (name, program) in enumerate(programs.items()):
        listen("curves_of", {"candidate": name, "done": done, "total": len(programs)})
        reason = None if name == REFERENCE else source.reject(program)
        if reason is None:
            found, reason = _curves(source, program, request, seeds)
            if reason is None:
                complete[name] = found
                continue
        if name == REFERENCE:
            raise RuntimeError(f"the reference has no complete set of runs: {reason}")
        listen("left_out", {"candidate": name, "reason": reason})
    if len(complete) < 2:
        raise RuntimeError("no candidate beside the reference completed every run; there is no table to write")
    return complete


def _curves(
    source: _Measured | _Recorded, program: Program, request: Request, seeds: int
) -> tuple[dict[tuple[str, int], Completed], str | None]:
    """The completed runs by (size, seed), or why there are none."""
    from training.outcome import explain

    specs: dict[tuple[str, int], RunSpec] = {}
    for number, size in enumerate(request.ladder.all_sizes):
        stage = Stage(index=number, size=size.name, seeds=seeds, keep=None, steps=None)
        for index in range(seeds):
            spec = source.factory.search(program.identity, stage, index)
            specs[size.name, spec.seed] = spec
    outcomes = source.outcomes(list(specs.values()), program)
    found: dict[tuple[str, int], Completed] = {}
    for cell, spec in specs.items():
        outcome = outcomes.get(spec.key)
        if outcome is None:
            return {}, f"not measured at size {cell[0]}, seed {cell[1]}"
        if outcome.status != "completed":
            return {}, f"at size {cell[0]}, seed {cell[1]}: {explain(outcome)}"
        found[cell] = outcome
    return found, None


def _table(
    request: Request,
    corpus: Corpus,
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
        "corpus": corpus.name,
        "corpus_hash": corpus.hash,
        "split": "search_validation",
        "identities": {name: programs[name].identity for name in names},
        "flops": flops,
    }
    return CurveTable(candidates=names, seeds=seeds, sizes=sizes, provenance=provenance)

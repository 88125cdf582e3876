"""What changed: the winner's diff taken back one edit at a time, each with its paired effect.

An edit is an operator of the catalogue with all its statements, or else one hunk of the line diff between
the reference's block and the winner's that belongs to none. The winner without an edit is a
candidate like any other: it passes the guards and is measured at the sizes of the ladder on paired tuning
seeds, which neither search nor confirmation has seen. The effect of an edit is the loss without it minus
the loss with it: above zero, the edit helps. An edit the rest cannot stand without is named with the
guard's reason; that is no number. Edits may need each other, so effects need not add up.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolution.config import ConfigError, EvolveConfig
from evolution.engine import Listener
from evolution.session import LEDGER_NAME, Bench, check_request, load_run_corpus, manifest_of, open_bench
from evolution.stages import RunFactory, Stage

if TYPE_CHECKING:
    from analysis.paired_tests import PairedTTest
    from frameworks.program import Program
    from frameworks.registry import Framework
    from training.run_spec import RunSpec


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One change: the reference's lines `removed` became `added` (either may be empty), from line `line` of the winner.

    Attributes:
        without: the winner's block with this change taken back.
        operator: name of the catalogue's operator that made it; None for a hunk that belongs to none.
    """

    line: int
    removed: tuple[str, ...]
    added: tuple[str, ...]
    without: str
    operator: str | None = None

    @property
    def summary(self) -> str:
        """The operator's name or the first changed line, for a table."""
        if self.operator is not None:
            return f"operator {self.operator}"
        shown = next((row.strip() for row in (*self.added, *self.removed) if row.strip()), "blank lines")
        return ("" if self.added else "removed: ") + shown


@dataclass(frozen=True, kw_only=True)
class EditEffect:
    """What one edit is worth.

    Attributes:
        edit: the edit.
        failure: why the winner cannot be measured without it; None when it was.
        differences: per seed, mean over sizes of loss without the edit minus loss with it, nats; empty on failure.
        test: two-sided paired t test and interval; None on failure.
        p_holm: its p corrected over all edits measured; None on failure.
    """

    edit: Edit
    failure: str | None
    differences: tuple[float, ...] = ()
    test: PairedTTest | None = None
    p_holm: float | None = None


def edits_between(reference: str, winner: str, framework_name: str) -> list[Edit]:
    """The changes from one block to another: operators first, then the other hunks; comments alone are none."""
    operators = _operators_between(reference, winner, framework_name)
    marks = tuple(f"# {edit.operator}" for edit in operators)
    before, after = reference.splitlines(keepends=True), winner.splitlines(keepends=True)
    hunks = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        changed = [row.strip() for row in (*before[i1:i2], *after[j1:j2])]
        words = [row for row in changed if row and not row.startswith("#")]
        if tag == "equal" or not words or any(row.endswith(mark) for row in words for mark in marks):
            continue
        hunks.append(
            Edit(
                line=j1 + 1,
                removed=tuple(before[i1:i2]),
                added=tuple(after[j1:j2]),
                without="".join((*after[:j1], *before[i1:i2], *after[j2:])),
            )
        )
    return operators + hunks


def _operators_between(reference: str, winner: str, framework_name: str) -> list[Edit]:
    """One edit for each catalogue operator that the winner has and the reference lacks."""
    from evolution.proposers.operators.simplification import present_operators, without_operator

    edits = []
    old = set(present_operators(reference, framework_name))
    for name in present_operators(winner, framework_name):
        without = None if name in old else without_operator(winner, framework_name, name)
        if without is None:
            continue
        rows = [(at, row) for at, row in enumerate(winner.splitlines(), start=1) if row.rstrip().endswith(f"# {name}")]
        edits.append(
            Edit(
                line=rows[0][0] if rows else 1,
                removed=(),
                added=tuple(row for _, row in rows),
                without=without,
                operator=name,
            )
        )
    return edits


def winner_of(run: Path) -> tuple[EvolveConfig, str, str]:
    """A run's configuration, and identity and block of the candidate its report shows in detail.

    Raises:
        ConfigError: no run, or one without a candidate to look at.
    """
    from evolution.ledger import Ledger
    from evolution.projection import report_data

    if not (run / LEDGER_NAME).is_file():
        raise ConfigError(f"{run} is not a run: it has no {LEDGER_NAME}; runs are folders such as runs/demo")
    with Ledger.open(run / LEDGER_NAME, read_only=True) as ledger:
        data = report_data(ledger, run.name)
    if data.winner is None or data.winner_block is None:
        raise ConfigError(f"{run} has no candidate beside the reference; there is nothing to take apart")
    return EvolveConfig.model_validate(data.manifest["config"]), data.winner, data.winner_block


def ablate(
    run: Path, *, seeds: int, sizes: Sequence[str] | None = None, listener: Listener | None = None
) -> list[EditEffect]:
    """Measure the winner of a run without each of its edits; runs go to `RUN-ablation` and are never made twice.

    Args:
        run: the run's folder.
        seeds: paired tuning seeds, at least two.
        sizes: sizes of the ladder; None takes every size but an unseen one.
        listener: called with (event, payload) as things happen.

    Raises:
        ValueError: not a run, nothing to take apart, or an unknown size.
        RuntimeError: the winner itself failed a run.
    """
    from evolution.ledger import Ledger
    from evolution.stages import check_size

    listen: Listener = listener or (lambda event, payload: None)
    config, _, block = winner_of(run)
    request = check_request(config.model_copy(update={"name": f"{run.name}-ablation", "start_program": None}))
    known = [size.name for size in request.ladder.all_sizes]
    for size in sizes or ():
        check_size(size, known, "--size", request.ladder.name)
    chosen = tuple(sizes) if sizes else tuple(size.name for size in request.ladder.sizes)
    corpus = load_run_corpus(config, request.ladder, listen)
    edits = edits_between(request.framework.start_block, block, request.framework.name)
    directory = run.parent / f"{run.name}-ablation"
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger.open(directory / LEDGER_NAME, create=True))
        ledger.record("run_started", manifest_of(request, corpus, None, kind="ablation"))
        bench = stack.enter_context(open_bench(request, directory, ledger, corpus, listen))
        winner = _losses(bench, request.framework.program(block), chosen, seeds)
        if isinstance(winner, str):
            raise RuntimeError(f"the winner itself could not be measured: {winner}")
        found = []
        for number, edit in enumerate(edits, start=1):
            listen("edit", {"number": number, "total": len(edits), "edit": edit})
            found.append(_effect(bench, request.framework, edit, winner, chosen, seeds))
    return _corrected(found)


def _effect(
    bench: Bench,
    framework: Framework,
    edit: Edit,
    winner: Mapping[tuple[str, int], float],
    sizes: Sequence[str],
    seeds: int,
) -> EditEffect:
    from analysis.paired_tests import paired_t
    from frameworks.program import ProgramError

    try:
        program = framework.program(edit.without)
    except ProgramError as error:
        return EditEffect(edit=edit, failure=str(error))
    failure = None if program.identity == framework.program().identity else bench.guarding.reject(program)
    losses = failure if failure is not None else _losses(bench, program, sizes, seeds)
    if isinstance(losses, str):
        return EditEffect(edit=edit, failure=losses)
    by_seed: dict[int, list[float]] = {}
    for (size, seed), loss in losses.items():
        by_seed.setdefault(seed, []).append(loss - winner[size, seed])
    differences = tuple(sum(gaps) / len(gaps) for gaps in by_seed.values())
    return EditEffect(edit=edit, failure=None, differences=differences, test=paired_t(differences))


def _losses(bench: Bench, program: Program, sizes: Sequence[str], seeds: int) -> dict[tuple[str, int], float] | str:
    """Losses by (size, seed), or why there are none."""
    from training.outcome import explain

    specs = {}
    for number, size in enumerate(sizes):
        stage = Stage(index=number, size=size, seeds=seeds, keep=None, steps=None)
        for index in range(seeds):
            specs[size, index] = tuning_spec(bench.factory, program.identity, stage, index)
    outcomes = bench.measurement.gather((spec, program.source) for spec in specs.values())
    losses: dict[tuple[str, int], float] = {}
    for cell, spec in specs.items():
        outcome = outcomes[spec.key]
        if outcome.status != "completed":
            return f"at size {cell[0]}, seed {cell[1]}: {explain(outcome)}"
        losses[cell] = outcome.val_loss
    return losses


def tuning_spec(factory: RunFactory, identity: str, stage: Stage, index: int) -> RunSpec:
    """The run on a tuning seed: the search's seeds chose the winner and would flatter every edit of it."""
    from training.run_spec import RunSpec, seed_for

    searched = factory.search(identity, stage, index)
    fields: dict[str, Any] = {**searched.model_dump(), "purpose": "tuning", "seed": seed_for("tuning", searched.seed)}
    return RunSpec.model_validate(fields)


def _corrected(effects: Sequence[EditEffect]) -> list[EditEffect]:
    """Holm over the edits that were measured."""
    from analysis.multiplicity import holm

    tested = [effect.test.p for effect in effects if effect.test is not None]
    corrected = iter(holm(tested)) if tested else iter(())
    return [
        effect if effect.test is None else dataclasses.replace(effect, p_holm=float(next(corrected)))
        for effect in effects
    ]

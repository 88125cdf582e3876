"""A look inside: what the winner's trained heads read, beside the reference's.

Both arms are trained once more, at one size on one tuning seed, in the sandbox as any run; their maps come back as
numbers and are read here. It describes one trained pair and proves nothing: for effects see the ablation.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evolution.ablation import tuning_spec, winner_of
from evolution.engine import Listener
from evolution.session import check_request, load_run_corpus
from evolution.stages import RunFactory, Stage, check_size

if TYPE_CHECKING:
    from analysis.differences import FloatArray
    from analysis.interpretability import HeadReading
    from frameworks.program import Program
    from training.run_spec import RunSpec

TARGET = "evolution.influence_run:measure"
_SECONDS = 3_600.0


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What one arm's heads read.

    Attributes:
        arm: "reference" or "winner".
        val_loss: of the model looked at, nats.
        maps: (heads of all layers, T, T).
        heads: one reading a head.
    """

    arm: str
    val_loss: float
    maps: FloatArray
    heads: tuple[HeadReading, ...]


def inspect_run(run: Path, *, size: str | None = None, listener: Listener | None = None) -> list[Inspection]:
    """Train reference and winner of a run at one size and read their maps.

    Args:
        run: the run's folder.
        size: a size of the ladder; None takes the smallest.
        listener: called with (event, payload) as things happen.

    Raises:
        ValueError: not a run, nothing to look at, or an unknown size.
        RuntimeError: a run failed.
    """
    from evolution.sandbox import Limits, Sandbox
    from training.precision import choose_precision

    listen: Listener = listener or (lambda event, payload: None)
    config, _, block = winner_of(run)
    request = check_request(config.model_copy(update={"start_program": None}))
    chosen = size or request.ladder.sizes[0].name
    check_size(chosen, [one.name for one in request.ladder.all_sizes], "--size", request.ladder.name)
    corpus = load_run_corpus(config, request.ladder, listen)
    factory = RunFactory(config, request.ladder, corpus, choose_precision("cpu")[0], "cpu")
    stage = Stage(index=0, size=chosen, seeds=1, keep=None, steps=None)
    arms = {"reference": request.framework.program(), "winner": request.framework.program(block)}
    found = []
    limits = Limits(seconds=_SECONDS, memory_bytes=int(config.limits.memory_gb * 1024**3))
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox(allow_unsandboxed=config.limits.allow_unsandboxed))
        for arm, program in arms.items():
            spec = tuning_spec(factory, program.identity, stage, 0)
            listen("inspecting", {"arm": arm, "size": chosen, "seed": spec.seed})
            result = sandbox.call(
                TARGET, _arguments(spec, program, corpus.directory), limits=limits, readable=[corpus.directory]
            )
            found.append(_read(arm, result))
    return found


def _arguments(spec: RunSpec, program: Program, corpus_dir: Path) -> dict[str, Any]:
    return {"spec": spec.model_dump(mode="json"), "source": program.source, "corpus_dir": str(corpus_dir)}


def _read(arm: str, result: object) -> Inspection:
    """What a worker returned, its maps checked: it shares its process with the candidate, so its word is not taken."""
    from analysis.interpretability import read_head
    from evolution.sandbox import Returned

    if not isinstance(result, Returned):
        raise RuntimeError(f"the {arm} could not be looked at: {result}")
    outcome, maps = result.value.get("outcome", {}), result.value.get("maps")
    if maps is None:
        raise RuntimeError(f"the {arm} did not complete its run: {outcome.get('status')}")
    table = np.array(maps, dtype=np.float64)
    # Rounding for the way leaves rows a little off one.
    table = table / np.maximum(table.sum(axis=-1, keepdims=True), 1e-12)
    return Inspection(
        arm=arm, val_loss=float(outcome["val_loss"]), maps=table, heads=tuple(read_head(head) for head in table)
    )

"""Measure one run inside a sandboxed worker: JSON in, the JSON of an outcome out.

Whatever a candidate does ends in an outcome: an exception of any kind is `Crashed` with the
candidate's own lines of the traceback, running out of memory is `OutOfMemory`. Only faults that
are not the candidate's (a spec that does not parse, a corpus that is gone, a full disk) are raised.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from training.outcome import Crashed, Outcome, OutOfMemory
from training.run_spec import RunSpec

if TYPE_CHECKING:
    from models.language_model import LanguageModel

_ARGUMENTS = ("spec", "source", "corpus_dir", "checkpoint_dir", "keep_every_checkpoint", "device_index")
_CANDIDATE = "<evoscale_candidate_"
"""How the file name of a candidate's code begins in a traceback."""
_MEMORY_SIGNS = ("not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "out of memory")
_LONGEST = 2_000


def measure(arguments: dict[str, Any]) -> dict[str, Any]:
    """Train one run and return its outcome as JSON; see `train`."""
    outcome, _ = train(arguments)
    return outcome.model_dump(mode="json")


def train(arguments: dict[str, Any]) -> tuple[Outcome, LanguageModel | None]:
    """Train one run.

    Args:
        arguments: `spec` (a RunSpec as JSON), `corpus_dir`, and optionally `source` (the candidate's
            program; None or absent measures the framework's own class, `standard` unless the spec's
            candidate is `evolvable`), `checkpoint_dir` (None or absent: no checkpoints),
            `keep_every_checkpoint` (true: none is dropped) and `device_index` (which GPU, for a CUDA run).

    Returns:
        The outcome, every number in it finite, and the trained model where the run completed.

    Raises:
        ValueError: unknown or missing arguments, a spec that is not legal, a corpus that is not the spec's.
        OSError: the corpus cannot be read or a checkpoint cannot be written.
    """
    import torch

    from data.corpus import open_corpus
    from training.checkpoint import CheckpointError
    from training.trainer import Trainer

    _check_arguments(arguments)
    spec = RunSpec.model_validate(arguments["spec"])
    corpus = open_corpus(Path(arguments["corpus_dir"]))
    if spec.device_kind == "cpu":
        torch.set_num_threads(1)
    elif arguments.get("device_index") is not None:
        torch.cuda.set_device(int(arguments["device_index"]))
    try:
        attention = _attention(spec, arguments.get("source"))
    except BaseException as error:  # a candidate may raise anything, SystemExit included
        return outcome_of_error(error), None
    trainer = Trainer(
        spec,
        corpus,
        attention,
        checkpoint_dir=arguments.get("checkpoint_dir"),
        keep_checkpoints=None if arguments.get("keep_every_checkpoint") else 2,
    )
    try:
        outcome = trainer.run()
    except BaseException as error:
        if isinstance(error, (CheckpointError, OSError)) and not candidate_lines(error.__traceback__):
            raise
        return outcome_of_error(error), None
    return outcome, trainer.model if outcome.status == "completed" else None


def outcome_of_error(error: BaseException) -> Crashed | OutOfMemory:
    """What an exception out of a candidate's run means."""
    message = _message(error)
    lowered = message.lower()
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in lowered for sign in _MEMORY_SIGNS)
    ):
        return OutOfMemory(limit_bytes=memory_limit())
    name = type(error).__name__
    return Crashed(
        error=f"{name}: {message}" if message else name,
        detail="\n".join(candidate_lines(error.__traceback__))[-_LONGEST:],
    )


def candidate_lines(trace: TracebackType | None) -> list[str]:
    """The frames of a traceback that lie in a candidate's program, outermost first, two lines each."""
    lines = []
    for frame in traceback.extract_tb(trace):
        if frame.filename.startswith(_CANDIDATE):
            lines.append(f"line {frame.lineno}, in {frame.name}")
            lines.append(f"    {frame.line or ''}")
    return lines[-20:]


def memory_limit() -> int | None:
    """The limit in bytes on this process's memory, None where there is none."""
    import resource

    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    finite = [limit for limit in limits if limit != resource.RLIM_INFINITY]
    return min(finite) if finite else None


def _attention(spec: RunSpec, source: str | None) -> Any:
    from models.language_model import attention_class

    if source is not None:
        return attention_class(spec.framework, "evolved", source)
    own = spec.candidate if spec.candidate in ("evolvable", "evolved") else "standard"
    return attention_class(spec.framework, own)


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # a candidate's exception may fail to print itself
        text = "(its message cannot be printed)"
    return text[:_LONGEST].encode("utf-8", "backslashreplace").decode("utf-8")


def _check_arguments(arguments: dict[str, Any]) -> None:
    unknown = sorted(set(arguments) - set(_ARGUMENTS))
    missing = [name for name in ("spec", "corpus_dir") if arguments.get(name) is None]
    if unknown or missing:
        what = "; ".join(
            [f"unknown arguments {', '.join(unknown)}"] * bool(unknown)
            + [f"missing arguments {', '.join(missing)}"] * bool(missing)
        )
        raise ValueError(f"measure: {what}; allowed: {', '.join(_ARGUMENTS)}")

"""Opens what an evolution needs, runs it, and closes it: folder, ledger, corpus, endpoint, sandbox.

Everything that can be wrong with the request is found before the run's folder is made,
so a mistake leaves nothing behind. A run that was interrupted or killed goes on from its
ledger; a finished one is shown again without starting anything.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolution.account import open_budget, set_aside
from evolution.calibration_record import withhold
from evolution.config import ConfigError, EvolveConfig
from evolution.control_arms import run_controls
from evolution.engine import Evolution, Listener
from evolution.fitness import LEAST_SIZES
from evolution.guarding import Guarding
from evolution.manifest import describe_environment, write_json
from evolution.measurement import Measurement
from evolution.proposers.roster import check_roster, model_file, name_of, open_roster, sections_of
from evolution.race_course import check_budget
from evolution.replay import check_corpus, differences, differences_of_files, source_ledger
from evolution.result import Result
from evolution.stages import RunFactory, Stage, confirmation_sizes, resolve_stages
from frameworks.registry import Framework, framework
from training.executors.local import default_workers

if TYPE_CHECKING:
    from data.corpus import Corpus
    from evolution.ledger import Ledger
    from evolution.sandbox import Sandbox
    from frameworks.program import Program
    from training.ladder import Ladder
    from training.run_spec import RunSpec

LEDGER_NAME = "ledger.sqlite"


@dataclass(frozen=True, kw_only=True)
class Request:
    """A checked request: everything resolved that can be resolved without writing."""

    config: EvolveConfig
    framework: Framework
    ladder: Ladder
    stages: tuple[Stage, ...]
    confirmation_sizes: tuple[str, ...]
    start: Program | None
    name: str
    workers: int

    @property
    def proposer(self) -> str:
        """The proposers in words."""
        return "; ".join(name_of(section) for section in sections_of(self.config))


def check_request(config: EvolveConfig) -> Request:
    """Resolve a configuration without writing anything.

    Raises:
        ValueError: unknown framework, ladder or size, an unusable start program or name.
    """
    from training.ladder import ladder

    found = framework(config.framework)
    rungs = ladder(config.ladder)
    name = config.name or f"{config.framework}-seed{config.seed}"
    if not name or name in (".", "..") or "/" in name or "\\" in name or name.startswith("-"):
        raise ConfigError(f"name {name!r} cannot name a folder; use letters, digits, '-', '_' and '.'")
    stages = resolve_stages(config, rungs)
    check_budget(config.racing, stages, rungs)
    searched = len({stage.size for stage in stages})
    if searched < LEAST_SIZES[config.fitness]:
        raise ConfigError(
            f"fitness {config.fitness!r} needs {LEAST_SIZES[config.fitness]} sizes in the search, "
            f"the stages have {searched}; add stages or use 'paired_gain'"
        )
    start = None if config.start_program is None else start_program(config.start_program, found)
    return Request(
        config=config,
        framework=found,
        ladder=rungs,
        stages=stages,
        confirmation_sizes=confirmation_sizes(config, rungs),
        start=start,
        name=name,
        workers=config.workers or default_workers(config.device),
    )


def start_program(name: str, found: Framework) -> Program:
    """The program in a file (whole, or its block alone), or the control of that name.

    Raises:
        ConfigError: no such file or control, an unreadable file, another framework's control, or an illegal block.
    """
    from frameworks.attention.controls.registry import UnknownControlError, control
    from frameworks.program import START_MARKER, ProgramError

    path = Path(name)
    if not path.exists() and path.suffix == "" and len(path.parts) == 1:
        try:
            chosen = control(name)
        except UnknownControlError as error:
            raise ConfigError(f"start_program {name!r} is no file, and {error}") from None
        if chosen.framework != found.name:
            raise ConfigError(f"start_program {name!r} is a control of {chosen.framework}, not of {found.name}")
        return chosen.program()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"start_program {name}: cannot be read: {error}") from None
    try:
        return found.program_from_source(text) if START_MARKER in text else found.program(text)
    except ProgramError as error:
        raise ConfigError(f"start_program {name}: {error}") from None


def load_run_corpus(config: EvolveConfig, ladder: Ladder, listener: Listener) -> Corpus:
    """The corpus of a run, built on first use and cached; each stage of building is an event.

    Raises:
        data.corpus.CorpusError: it cannot be read or is too small.
    """
    from data.corpus import CorpusConfig, load_corpus

    section = config.corpus
    stages: set[str] = set()

    def progress(stage: str, done: int, total: int | None) -> None:
        if stage not in stages:
            stages.add(stage)
            listener("building", {"source": section.source, "stage": stage})

    return load_corpus(
        CorpusConfig(
            source=section.source,
            vocab_size=section.vocab_size or ladder.vocab_size,
            max_bytes=section.max_bytes,
            text_field=section.text_field,
            seed=config.seed,
        ),
        progress=progress,
    )


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The open parts that candidates are measured with."""

    ledger: Ledger
    sandbox: Sandbox
    corpus: Corpus
    factory: RunFactory
    measurement: Measurement
    guarding: Guarding


@contextmanager
def open_bench(
    request: Request,
    directory: Path,
    ledger: Ledger,
    corpus: Corpus,
    listener: Listener,
    keep: Callable[[RunSpec], Path | None] | None = None,
) -> Iterator[Bench]:
    """Start the sandbox and everything that measures; all of it ends with the block. `keep`: see `Measurement`."""
    from evolution.sandbox import Sandbox, sandbox_ability
    from training.precision import choose_device, choose_precision

    config = request.config
    device_kind = choose_device(config.device)
    precision, reason = choose_precision(device_kind)
    listener("precision", {"precision": precision, "reason": reason})
    factory = RunFactory(config, request.ladder, corpus, precision, device_kind)
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox(allow_unsandboxed=config.limits.allow_unsandboxed))
        listener("sandbox", {"reason": sandbox_ability().reason, "confined": sandbox.confined})
        measurement = Measurement(
            ledger=ledger,
            sandbox=sandbox,
            corpus=corpus,
            directory=directory / "scratch",
            workers=request.workers,
            limits=config.limits,
            reference=request.framework.program().identity,
            on_outcome=lambda spec, outcome, recorded: listener(
                "outcome", {"spec": spec, "outcome": outcome, "recorded": recorded}
            ),
            keep=keep,
        )
        stack.callback(measurement.close)
        guarding = Guarding(
            ledger=ledger,
            sandbox=sandbox,
            framework=request.framework,
            sizes=factory.guard_sizes(),
            seed=config.seed,
            limits=config.limits,
        )
        yield Bench(
            ledger=ledger,
            sandbox=sandbox,
            corpus=corpus,
            factory=factory,
            measurement=measurement,
            guarding=guarding,
        )


def evolve(
    config: EvolveConfig,
    runs: Path,
    *,
    arguments: list[str] | None = None,
    listener: Listener | None = None,
    replay: Path | None = None,
) -> Result:
    """Run an evolution to its verdict, or go on with one that was interrupted.

    Args:
        config: what to run.
        runs: folder of all runs; this one is `runs/<name>`.
        arguments: the command line, for the report's reproduction line.
        listener: called with (event, payload) as things happen.
        replay: folder of the run whose replies are used instead of asking; `config` is its, see `replay_config`.

    Raises:
        ValueError: anything wrong with the request, before anything is written.
        KeyboardInterrupt: after the interruption is in the ledger.
    """
    from evolution.projection import report_of_run

    listen: Listener = listener or (lambda event, payload: None)
    request = check_request(config)
    directory = runs / request.name
    ledger_path = directory / LEDGER_NAME
    finished = _finished(request, directory) if ledger_path.exists() else None
    if finished is not None:
        listen("finished_before", {"name": request.name, "directory": str(directory)})
        if replay is not None:
            listen("replayed", {"run": str(replay), "differences": differences_of_files(replay, ledger_path)})
        return withhold(finished, directory)
    endpoints = None if replay is not None else check_roster(config)
    corpus = load_run_corpus(config, request.ladder, listen)
    tokens = set_aside(request, corpus)
    from evolution.ledger import Ledger

    with ExitStack() as stack:
        source = None
        if replay is not None:
            source = stack.enter_context(Ledger.open(source_ledger(replay), read_only=True))
            check_corpus(source, corpus.hash, replay)
        roster = stack.enter_context(open_roster(config, request.framework, endpoints))
        directory.mkdir(parents=True, exist_ok=True)
        ledger = stack.enter_context(Ledger.open(ledger_path, create=True))
        manifest = manifest_of(request, corpus, arguments)
        resumed = _check_same_run(ledger, manifest, request.name)
        ledger.record("run_started", manifest)
        write_json(directory / "manifest.json", manifest)
        listen("started", {"manifest": manifest, "directory": str(directory), "resumed": resumed, "request": request})
        bench = stack.enter_context(open_bench(request, directory, ledger, corpus, listen))
        budget = open_budget(request, ledger, tokens)
        evolution = Evolution(
            config=config,
            framework=request.framework,
            stages=request.stages,
            confirmation_sizes=request.confirmation_sizes,
            factory=bench.factory,
            ledger=ledger,
            measurement=bench.measurement,
            guarding=bench.guarding,
            roster=roster,
            budget=budget,
            source=source,
            start=request.start,
            listener=listen,
        )
        try:
            result = evolution.run()
            if config.controls.names:
                run_controls(evolution, request, bench, roster, budget, source, listen)
        except KeyboardInterrupt:
            ledger.record("interrupted", {"reason": "stopped by the user"})
            raise
        ledger.record_once("run_finished", {"sentence": result.sentence, "n_candidates": result.n_candidates}, "end")
        if source is not None:
            listen("replayed", {"run": str(replay), "differences": differences(source, ledger)})
        report = report_of_run(ledger, directory)
        result = withhold(result, directory)
        listen("report", {"path": str(report), "result": result})
    return result


def manifest_of(request: Request, corpus: Corpus, arguments: list[str] | None, kind: str = "evolve") -> dict[str, Any]:
    """What the run is made with, for the ledger and `manifest.json`."""
    return {
        "name": request.name,
        "kind": kind,
        "config": request.config.model_dump(mode="json"),
        "proposer": request.proposer,
        "proposers": [
            {"name": name_of(section), "uses_llm": section.kind != "catalogue", **model_file(section)}
            for section in sections_of(request.config)
        ],
        "command": shlex.join(["evoscale", *arguments]) if arguments else None,
        "reference": request.framework.program().identity,
        "start": request.start.identity if request.start else None,
        "ladder": request.ladder.model_dump(mode="json"),
        "confirmation_sizes": list(request.confirmation_sizes),
        "corpus": {
            "name": corpus.name,
            "hash": corpus.hash,
            "tokenizer_hash": corpus.tokenizer_hash,
            "vocab_size": corpus.vocab_size,
        },
        "workers": request.workers,
        "environment": describe_environment(),
    }


# What may differ between a run and its resumption without touching a result.
_FREE = ("workers", "limits", "name")


def _without_free(section: Mapping[str, Any]) -> dict[str, Any]:
    free = ("timeout", "api_key_file", "api_key_variable", "backoff")
    return {key: value for key, value in section.items() if key not in free}


def _identity_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in manifest["config"].items() if key not in _FREE}
    kept["proposer"] = _without_free(kept["proposer"])
    kept["proposers"] = [_without_free(section) for section in kept.get("proposers") or ()]
    flat: dict[str, Any] = {}
    _flatten(kept, "", flat)
    if "corpus" in manifest:
        flat["corpus hash"] = manifest["corpus"]["hash"]
        flat["start program"] = manifest["start"]
    return flat


def _flatten(value: Any, prefix: str, into: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(item, f"{prefix}.{key}" if prefix else str(key), into)
    else:
        into[prefix] = value


def _check_same_run(ledger: Ledger, manifest: Mapping[str, Any], name: str) -> bool:
    """True when the ledger holds an earlier start of this very run.

    Raises:
        ConfigError: it holds another run; the message names what differs.
    """
    started = ledger.events("run_started", limit=1)
    if not started:
        return False
    _refuse_other(started[0].payload, _identity_of(manifest), name)
    return True


def _refuse_other(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    then = _identity_of(before)
    changed = [key for key in now if then.get(key) != now[key]]
    if changed:
        shown = "; ".join(f"{key} was {then.get(key)!r}, now {now[key]!r}" for key in changed[:3])
        raise ConfigError(
            f"run '{name}' was started with other settings ({shown}); use the same ones to go on, or another --name"
        )


def _finished(request: Request, directory: Path) -> Result | None:
    """The result of a run whose ledger says that it ended, after checking that it is the same run."""
    from evolution.ledger import Ledger
    from evolution.projection import stored_verdicts

    with Ledger.open(directory / LEDGER_NAME, read_only=True) as ledger:
        started = ledger.events("run_started", limit=1)
        end = ledger.event("run_finished", "end")
        if not started or end is None:
            return None
        now = _identity_of({"config": request.config.model_dump(mode="json")})
        _refuse_other(started[0].payload, now, request.name)
        return Result(
            verdicts=stored_verdicts(ledger),
            n_candidates=int(end.payload["n_candidates"]),
            sentence=str(end.payload["sentence"]),
        )

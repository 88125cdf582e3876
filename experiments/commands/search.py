"""`evoscale search`: architectures in the DSL: validate, train, sweep and evolve them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from frameworks.architecture.schema import Architecture
    from training.architecture_spec import StretchSpec
    from training.outcome import Outcome

search = typer.Typer(
    name="search", help="Search over architectures written in the DSL.", no_args_is_help=True, add_completion=False
)

Files = Annotated[list[str], typer.Argument(help="YAML files, folders of them, or names of presets.")]
Name = Annotated[str, typer.Option(help="Folder under --runs; the same name goes on with a search.")]
Runs = Annotated[Path, typer.Option(help="Folder of all runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Seed = Annotated[int | None, typer.Option(help="Seed of weights, batches and proposals.")]
SeqLen = Annotated[int | None, typer.Option(help="Tokens in a sequence.")]
Batch = Annotated[int | None, typer.Option("--batch-size", help="Sequences a step.")]
Corpus = Annotated[str | None, typer.Option(help="stdlib, stories, tinystories, or a text file.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes; default one a core.")]
DeepSteps = Annotated[int | None, typer.Option(help="Steps of a last look at the best; without it there is none.")]
DeepSeqLen = Annotated[int | None, typer.Option(help="Tokens in a sequence of the last look.")]
DeepBatch = Annotated[int | None, typer.Option("--deep-batch-size", help="Sequences a step of the last look.")]
DeepTopK = Annotated[int | None, typer.Option(help="How many get the last look.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; a run that fails on cuda is done on the CPU once.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="One setting, name=value; may be repeated.")]
_SETTINGS = (
    *("seed", "seq_len", "batch_size", "deep_steps", "deep_seq_len", "deep_batch_size", "deep_top_k", "device"),
    *("workers", "generations", "population", "top_k", "immigrants", "crossover", "allow_unsandboxed"),
)
Unsandboxed = Annotated[
    bool, typer.Option("--allow-unsandboxed", help="Run even where the kernel offers no isolation.")
]


@search.command("presets")
def presets(json_output: Json = False) -> None:
    """List the presets."""
    from frameworks.architecture.preset import preset_names

    print(json.dumps(preset_names()) if json_output else "\n".join(preset_names()))


@search.command("schema")
def schema() -> None:
    """Print the JSON schema of the DSL."""
    from frameworks.architecture.document import json_schema

    print(json.dumps(json_schema(), indent=2))


@search.command("validate")
def validate(
    files: Files,
    vocab_size: Annotated[int, typer.Option(min=1, help="Vocabulary that costs are counted with.")] = 512,
    json_output: Json = False,
) -> None:
    """Check files and print what each architecture costs; nothing is built or trained."""
    from frameworks.architecture.document import identity
    from models.pipeline.architecture_cost import architecture_cost

    rows = []
    for architecture in _architectures(files):
        length = architecture.train.seq_len
        cost = architecture_cost(architecture.arch, vocab_size=vocab_size, batch=1, length=length)
        rows.append(
            {
                "name": architecture.name,
                "identity": identity(architecture),
                "parameters": cost.parameters,
                "forward_flops": cost.flops,
                "kv_bytes": cost.kv_bytes,
                "state_bytes": cost.state_bytes,
                "seq_len": length,
            }
        )
    if json_output:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            f"{row['name']}  {str(row['identity'])[:12]}  {row['parameters']:,} parameters, "
            f"{row['forward_flops']:,} FLOPs and {row['kv_bytes']:,} + {row['state_bytes']:,} bytes "
            f"(keys and values + states) for {row['seq_len']} tokens"
        )


@search.command("train")
def train(
    file: Annotated[str, typer.Argument(help="A YAML file or the name of a preset.")],
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 20,
    output_dir: Annotated[
        Path | None, typer.Option(help="Checkpoint folder; a folder in runs/ when not given.")
    ] = None,
    seed: Seed = None,
    seq_len: SeqLen = None,
    batch_size: Batch = None,
    corpus: Corpus = None,
    device: Device = None,
    json_output: Json = False,
) -> None:
    """Train one architecture and evaluate it on held-out text; the same command again goes on or shows the result."""
    from data.corpus import CorpusConfig, load_corpus
    from evolution.architecture_search.settings import SearchSettings, settings_from
    from evolution.architecture_search.table import row_of
    from evolution.config import ConfigError
    from frameworks.architecture.preset import find_architecture
    from training.architecture_spec import stretch_spec
    from training.architecture_trainer import train_stretch
    from training.outcome import explain

    architecture = find_architecture(file)
    given: dict[str, Any] = {"seed": seed, "device": device, "seq_len": seq_len, "batch_size": batch_size}
    given |= {"corpus": None if corpus is None else {"source": corpus}}
    settings = settings_from(SearchSettings, given)
    tokens = load_corpus(CorpusConfig(source=settings.corpus.source, vocab_size=settings.vocab_size))
    spec = stretch_spec(
        architecture,
        stop_at=steps,
        horizon=steps,
        seed=settings.seed,
        vocab_size=tokens.vocab_size,
        corpus_hash=tokens.hash,
        tokenizer_hash=tokens.tokenizer_hash,
        seq_len=seq_len,
        batch_size=batch_size,
        eval_tokens=settings.eval_tokens,
        device_kind="cuda" if settings.device == "cuda" else "cpu",
    )
    folder = output_dir or Path("runs") / f"train-{architecture.name}-{spec.trajectory[:8]}"

    def progress(step: int, loss: float) -> None:
        if not json_output:
            print(f"step {step}/{steps}  loss {loss:.4f}", flush=True)

    try:
        outcome = train_stretch(spec, architecture, tokens, folder, progress)
    except ValueError as error:  # another run's checkpoint, or more tokens than learned positions
        raise ConfigError(f"{architecture.name}: {error}") from None
    row = row_of(architecture, spec, outcome)
    if json_output:
        print(json.dumps(row.to_json()))
    elif row.loss is not None:
        print(f"{row.name}: held-out loss {row.loss:.4f}, accuracy {row.accuracy:.3f}, ECE {row.ece:.4f}; {folder}")
        if row.fallback:
            print(row.fallback)
    else:
        print(explain(outcome))
    raise typer.Exit(0 if row.loss is not None else 1)


@search.command("sweep")
def sweep(
    files: Files,
    name: Name = "sweep",
    runs: Runs = Path("runs"),
    seed: Seed = None,
    seq_len: SeqLen = None,
    batch_size: Batch = None,
    deep_steps: DeepSteps = None,
    deep_seq_len: DeepSeqLen = None,
    deep_batch_size: DeepBatch = None,
    deep_top_k: DeepTopK = None,
    corpus: Corpus = None,
    device: Device = None,
    workers: Workers = None,
    set_: Set = None,
    allow_unsandboxed: Unsandboxed = False,
    json_output: Json = False,
) -> None:
    """ASHA for breadth, then PDH for depth; ends in runs/NAME/search_report.json and search_report.md."""
    from evolution.architecture_search.search_report import write_report
    from evolution.architecture_search.settings import SearchSettings, settings_from
    from evolution.architecture_search.sweep import sweep as run_sweep
    from evolution.architecture_search.workplace import workplace
    from frameworks.architecture.document import identity

    members = _different(_architectures(files))
    settings = settings_from(SearchSettings, _given(locals()))
    folder = _folder(runs, name)
    with workplace(folder, "sweep", settings, members, _Said(json_output)) as measurement:
        rows = run_sweep(measurement, members)
    known = {identity(architecture): architecture for architecture in members}
    sentence = write_report(folder, "sweep", rows, known, members, {})
    _finish(sentence, folder, json_output, rows[0].loss is not None)


@search.command("evolve")
def evolve(
    files: Files,
    generations: Annotated[int | None, typer.Option(help="Generations of children.")] = None,
    population: Annotated[int | None, typer.Option(help="Children a generation.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Parents kept a generation.")] = None,
    immigrants: Annotated[int | None, typer.Option(help="Children a generation that start from the files.")] = None,
    crossover: Annotated[float | None, typer.Option(help="Share of children from two parents.")] = None,
    name: Name = "evolution",
    runs: Runs = Path("runs"),
    seed: Seed = None,
    seq_len: SeqLen = None,
    batch_size: Batch = None,
    deep_steps: DeepSteps = None,
    deep_seq_len: DeepSeqLen = None,
    deep_batch_size: DeepBatch = None,
    deep_top_k: DeepTopK = None,
    corpus: Corpus = None,
    device: Device = None,
    workers: Workers = None,
    set_: Set = None,
    allow_unsandboxed: Unsandboxed = False,
    json_output: Json = False,
) -> None:
    """Mutate and cross the files; children are in runs/NAME/evolution/gen_*/variant_*.yaml, the report beside them."""
    from evolution.architecture_search.generations import Generations
    from evolution.architecture_search.search_report import write_report
    from evolution.architecture_search.settings import EvolutionSettings, settings_from
    from evolution.architecture_search.workplace import workplace

    members = _different(_architectures(files))
    settings = settings_from(EvolutionSettings, _given(locals()))
    folder = _folder(runs, name)
    with workplace(folder, "evolve", settings, members, _Said(json_output)) as measurement:
        search_run = Generations(measurement, members, settings, folder)
        rows = search_run.run()
    sentence = write_report(folder, "evolve", rows, search_run.known, members, search_run.origins)
    _finish(sentence, folder, json_output, rows[0].loss is not None)


class _Said:
    """Prints a line for each stretch."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.count = 0

    def __call__(self, name: str, spec: StretchSpec, outcome: Outcome, known: bool) -> None:
        from training.architecture_trainer import Trained

        self.count += 1
        if self.quiet or known:
            return
        told: str = outcome.status
        if isinstance(outcome, Trained):
            told = f"loss {outcome.val_loss:.4f}  ({outcome.seconds:.1f} s)"
            if outcome.fallback:
                told += f"  {outcome.fallback}"
        print(f"{self.count:>4}  {name:<28} to step {spec.stop_at:<5} {told}", flush=True)


def _architectures(files: list[str]) -> list[Architecture]:
    from frameworks.architecture.document import ArchitectureError, load_architecture
    from frameworks.architecture.preset import find_architecture

    found: list[Architecture] = []
    for file in files:
        path = Path(file)
        if not path.is_dir():
            found.append(find_architecture(file))
            continue
        inside = sorted(path.glob("*.yaml"))
        if not inside:
            raise ArchitectureError(f"{file}: the folder holds no .yaml files")
        found += [load_architecture(item) for item in inside]
    return found


def _different(architectures: list[Architecture]) -> list[Architecture]:
    from frameworks.architecture.document import identity

    return list({identity(architecture): architecture for architecture in architectures}.values())


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The settings among a command's options, with `--set name=value` over them."""
    import yaml

    from evolution.config import ConfigError

    given = {name: options[name] for name in _SETTINGS if name in options}
    if options["corpus"] is not None:
        given["corpus"] = {"source": options["corpus"]}
    for setting in options["set_"] or []:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting!r}: expected NAME=VALUE, such as asha_eta=2")
        try:
            given[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"--set {setting!r}: the value is not YAML") from None
    return given


def _folder(runs: Path, name: str) -> Path:
    from evolution.config import ConfigError

    if not name or name in (".", "..") or "/" in name or "\\" in name or name.startswith("-"):
        raise ConfigError(f"--name {name!r} cannot name a folder; use letters, digits, '-', '_' and '.'")
    return runs / name


def _finish(sentence: str, folder: Path, json_output: bool, worked: bool) -> None:
    from evolution.architecture_search.search_report import JSON_NAME, TEXT_NAME

    if json_output:
        print(json.dumps({"sentence": sentence, "report": str(folder / JSON_NAME)}))
    else:
        print(f"{sentence}\nreport: {folder / TEXT_NAME}")
    raise typer.Exit(0 if worked else 1)

"""`python -m training.train`: train one model and keep its checkpoints and history.

Defaults finish within a minute on one core, without a network: softmax attention of the matrix
mixer on the Python standard library's own text. Every option may be spelled with dashes or
underscores. A run that is interrupted (Ctrl-C) writes a checkpoint and goes on from there when the
same command is given again; the losses are the same to the last bit.
"""

from __future__ import annotations

import argparse
import difflib
import json
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from torch import nn

    from data.corpus import Corpus
    from training.outcome import Outcome
    from training.run_spec import RunSpec
    from training.trainer import Progress

EXIT_INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """Takes `--max_steps` for `--max-steps`; a wrong option is answered with the nearest one."""

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        dashed = []
        for argument in arguments:
            name, equals, value = argument.partition("=")
            dashed.append((name.replace("_", "-") if name.startswith("--") else name) + equals + value)
        options, unknown = self.parse_known_args(dashed)
        if unknown:
            known = list(self._option_string_actions)
            near = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1, cutoff=0.5)
            self.error(f"unknown option {unknown[0]}" + (f"; did you mean {near[0]}?" if near else ""))
        return options

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}\nSee {self.prog} --help.\n")
        raise SystemExit(2)


def _whole(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value


def _parser(prog: str) -> _Parser:
    parser = _Parser(
        prog=prog,
        description="Train one language model with a framework's attention. --max_steps is --max-steps, and so on.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )

    def number(name: str, default: int | None, help: str) -> None:
        parser.add_argument(name, type=_whole, metavar="N", default=default, help=help)

    def real(name: str, default: float, help: str) -> None:
        parser.add_argument(name, type=float, metavar="X", default=default, help=help)

    add = parser.add_argument
    add("--framework", default="matrix_mixer", help="coefficient_dynamics, test_time_regression or matrix_mixer")
    add("--variant", default="standard", help="standard (the reference), evolvable or evolved (the block)")
    add("--program", type=Path, help="a program file with an EVOLVE-BLOCK; it is executed as it stands")
    add("--output-dir", type=Path, help="where checkpoints and history.json go; a folder in runs/ when not given")
    number("--max-steps", 1000, "training steps")
    number("--eval-frequency", 100, "steps between evaluations")
    number("--eval-tokens", 12_288, "tokens an evaluation")
    number("--checkpoint-frequency", None, "steps between checkpoints; --eval-frequency when not given")
    number("--keep-checkpoints", 2, "newest checkpoints kept, at least 2")
    number("--d-model", 64, "model width")
    number("--num-layers", 2, "transformer blocks")
    number("--num-heads", 4, "attention heads; must divide --d-model")
    number("--batch-size", 8, "sequences a step")
    number("--seq-len", 64, "tokens a sequence")
    real("--learning-rate", 6e-3, "peak learning rate")
    add("--warmup-steps", type=int, metavar="N", help="steps of linear warm-up; a tenth of --max-steps when not given")
    add("--schedule", choices=("cosine", "constant"), default="cosine", help="after the warm-up")
    real("--weight-decay", 0.0, "on matrices only")
    real("--clip", 1.0, "largest gradient norm, 0 for none")
    add("--corpus", default="stdlib", help="stdlib, stories, tinystories, or a .txt, .jsonl or .parquet file")
    number("--vocab-size", 512, "BPE vocabulary")
    number("--max-bytes", None, "use only the first bytes of the corpus")
    add("--seed", type=int, default=42, help="initial weights and batches")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU where there is one")
    add("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="auto asks the device")
    add("--compile", action="store_true", help="compile the model; with CUDA graphs on a GPU, little gained on a CPU")
    number("--stack-seeds", 1, "seeds trained at once from --seed on, without checkpoints; for GPUs")
    number("--threads", 1, "CPU threads; another number moves the last bits of the losses")
    add("--json", action="store_true", help="print the outcome as JSON and nothing else")
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = "python -m training.train") -> int:
    """Train as the command line says.

    Args:
        arguments: the command line; None takes the process's own.
        prog: what messages call the command.

    Returns:
        Exit status: 0 only when the run completed, 1 for any other outcome, 2 for options that
        cannot be used, 130 when interrupted.
    """
    parser = _parser(prog)
    options = parser.parse(sys.argv[1:] if arguments is None else arguments)
    if options.keep_checkpoints < 2:
        parser.error(
            f"--keep-checkpoints {options.keep_checkpoints}: at least 2, so that a damaged one has a previous one"
        )
    try:
        return _train(options)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{parser.prog}: {_explain(error)}\n")
        return 2
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _train(options: argparse.Namespace) -> int:
    import torch

    from data.corpus import CorpusConfig, load_corpus
    from models.language_model import attention_class
    from training.outcome import Completed, explain
    from training.trainer import Interrupted, Trainer

    source = None if options.program is None else options.program.read_text(encoding="utf-8")
    variant = "evolved" if source is not None and options.variant == "standard" else options.variant
    attention = attention_class(options.framework, variant, source)
    torch.set_num_threads(options.threads)
    say: Callable[[str], None] = (lambda _: None) if options.json else (lambda text: print(text, file=sys.stderr))
    device_kind, precision = _device(options, say)
    config = CorpusConfig(source=options.corpus, vocab_size=options.vocab_size, max_bytes=options.max_bytes)
    corpus = load_corpus(config)
    spec = _spec(
        options, corpus, variant if source is None else _identity(options.framework, source), device_kind, precision
    )

    output_dir = options.output_dir or Path("runs") / f"train-{options.framework}-{variant}-{spec.key[:8]}"
    if options.stack_seeds > 1:
        return _train_stacked(options, spec, corpus, attention, output_dir, say)
    with _stop_on_signal() as stop, _progress_bar(spec, quiet=options.json) as show, warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: say(f"warning: {message}")
        trainer = Trainer(
            spec,
            corpus,
            attention,
            checkpoint_dir=output_dir,
            progress=show,
            should_stop=stop,
            checkpoint_every=options.checkpoint_frequency,
            keep_checkpoints=options.keep_checkpoints,
        )
        try:
            outcome: Outcome = trainer.run()
        except Interrupted as interruption:
            say(f"stopped after step {interruption.step}; give the same command to go on from there")
            return EXIT_INTERRUPTED
    if options.json:
        print(json.dumps(outcome.model_dump(mode="json")))
    else:
        print(explain(outcome))
        print(f"history and checkpoints: {output_dir}")
    return 0 if isinstance(outcome, Completed) else 1


def _train_stacked(
    options: argparse.Namespace,
    spec: RunSpec,
    corpus: Corpus,
    attention: type[nn.Module],
    output_dir: Path,
    say: Callable[[str], None],
) -> int:
    """Train `--stack-seeds` seeds at once; each leaves `seed-N/history.json`."""
    from training.outcome import Completed, explain
    from training.run_files import write_history
    from training.run_spec import RunSpec
    from training.stacked import train_stacked

    if options.compile:
        raise ValueError("--compile and --stack-seeds exclude each other; give one of them")
    fields = spec.model_dump() | {"execution": "stacked"}
    specs = [RunSpec.model_validate(fields | {"seed": spec.seed + index}) for index in range(options.stack_seeds)]
    result = train_stacked(specs, corpus, attention)
    if result.fell_back is not None:
        say(f"not stacked but one after the other, since the program cannot be vectorised ({result.fell_back})")
    for each, outcome in zip(result.specs, result.outcomes, strict=True):
        write_history(output_dir / f"seed-{each.seed}", each, outcome)
        if not options.json:
            print(f"seed {each.seed}: {explain(outcome)}")
    if options.json:
        print(json.dumps([outcome.model_dump(mode="json") for outcome in result.outcomes]))
    else:
        print(f"histories: {output_dir}")
    return 0 if all(isinstance(outcome, Completed) for outcome in result.outcomes) else 1


def _device(options: argparse.Namespace, say: Callable[[str], None]) -> tuple[str, str]:
    from training.precision import choose_device, choose_precision

    device_kind = choose_device(options.device)
    precision = options.precision
    if precision == "auto":
        precision, reason = choose_precision(device_kind)
        say(f"{device_kind}, {precision} ({reason})")
    return device_kind, precision


def _identity(framework: str, source: str) -> str:
    from frameworks.registry import framework as find_framework

    return find_framework(framework).program_from_source(source).identity


def _spec(options: argparse.Namespace, corpus: Corpus, candidate: str, device_kind: str, precision: str) -> RunSpec:
    from training.run_spec import RunSpec, seed_for

    warmup = options.max_steps // 10 if options.warmup_steps is None else options.warmup_steps
    if not 0 <= warmup <= options.max_steps:
        raise ValueError(f"--warmup-steps {warmup} is outside 0..{options.max_steps} (--max-steps)")
    fields = {
        "candidate": candidate,
        "framework": options.framework,
        "size": f"d{options.d_model}",
        "d_model": options.d_model,
        "n_layers": options.num_layers,
        "n_heads": options.num_heads,
        "vocab_size": options.vocab_size,
        "seq_len": options.seq_len,
        "batch_size": options.batch_size,
        "steps": options.max_steps,
        "learning_rate": options.learning_rate,
        "warmup_fraction": warmup / options.max_steps,
        "schedule": options.schedule,
        "weight_decay": options.weight_decay,
        "clip": options.clip,
        "seed": seed_for("search", options.seed),
        "purpose": "search",
        "eval_split": "search_validation",
        "eval_every": options.eval_frequency,
        "eval_tokens": options.eval_tokens,
        "corpus_hash": corpus.hash,
        "tokenizer_hash": corpus.tokenizer_hash,
        "precision": precision,
        "device_kind": device_kind,
        "execution": "compiled" if options.compile else "eager",
    }
    return RunSpec.model_validate(fields)


_FLAGS = {
    "n_layers": "--num-layers",
    "n_heads": "--num-heads",
    "steps": "--max-steps",
    "warmup_fraction": "--warmup-steps",
    "eval_every": "--eval-frequency",
}


def _explain(error: Exception) -> str:
    """An error in the words of the command line: the flag in place of the field."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    lines = []
    for problem in error.errors():
        message = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            lines.append(message)
            continue
        field = str(problem["loc"][0])
        lines.append(f"{_FLAGS.get(field, '--' + field.replace('_', '-'))} {problem['input']!r}: {message}")
    return "; ".join(lines)


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C (or SIGTERM) into a request that the run answers at the end of its step."""
    asked: list[int] = []

    def note(number: int, _: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread
        before = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress_bar(spec: RunSpec, *, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """A bar with loss, learning rate, rate and time left; nothing when `quiet`."""
    if quiet:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.fields[losses]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=spec.steps, losses="starting", rate="")

        def show(progress: Progress) -> None:
            losses = f"loss {progress.loss:.3f}"
            if progress.val_loss is not None:
                losses += f"  val {progress.val_loss:.4f}"
            bar.update(
                task,
                completed=progress.step,
                losses=f"{losses}  lr {progress.learning_rate:.2e}",
                rate=f"{progress.tokens_per_second:,.0f} tokens/s",
            )

        yield show


if __name__ == "__main__":
    raise SystemExit(main())

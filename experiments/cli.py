"""`evoscale`: the command line. Commands live in `experiments.commands`, one file each.

Torch and everything heavy is imported inside the commands, so that `--help` is quick. A
mistake of the user's is one sentence on standard error and exit status 2; an
interruption is exit status 130 and says how to go on.
"""

from __future__ import annotations

import os
import signal
import sys

import typer

from experiments.commands import ablate, bench, calibrate, curves, doctor, evolve, finetune, inspect, merge, report
from experiments.commands import probe as probe_command
from experiments.commands import search as search_command
from experiments.commands import train as train_command
from experiments.commands import tune as tune_command
from experiments.commands import validate as validate_command

app = typer.Typer(
    name="evoscale",
    help="Evolve parts of neural networks, and tell honestly whether a winner is really better.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("evolve")(evolve.evolve)
app.command(
    "train",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)(train_command.train)
app.command("tune")(tune_command.tune)
app.command("validate")(validate_command.validate)
app.command("probe")(probe_command.probe)
app.command("calibrate")(calibrate.calibrate)
app.command("curves")(curves.curves)
app.command("ablate")(ablate.ablate)
app.command("inspect")(inspect.inspect)
app.command("merge")(merge.merge)
app.command("finetune")(finetune.finetune)
app.command("report")(report.report)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.add_typer(search_command.search)

EXIT_INTERRUPTED = 130


def main() -> None:
    """Entry point of the console command."""
    # Two threads in one process are slower than two processes; set before torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # A scheduler ends jobs with SIGTERM; it is an interruption like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except SystemExit as stop:
        # typer turns a KeyboardInterrupt into this status; a command that chose it has said its own sentence.
        if stop.code == EXIT_INTERRUPTED and _comes_from(stop, KeyboardInterrupt):
            print("interrupted: everything measured is kept; the same command goes on from there", file=sys.stderr)
        raise
    except Exception as error:
        if not is_users(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _comes_from(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None


def is_users(error: Exception) -> bool:
    """Whether an error is about the request, so that its sentence is all a user needs."""
    # Named, not imported: the modules may be heavy and are loaded only if they raised.
    names = {
        "ArchitectureError",
        "CheckpointError",
        "ConfigError",
        "CorpusError",
        "CurveTableError",
        "EndpointError",
        "LedgerError",
        "MeasurementError",
        "MergeError",
        "NoiserError",
        "ProgramError",
        "SandboxUnavailable",
        "TranslationError",
        "TuningError",
        "UnknownControlError",
        "UnknownFrameworkError",
        "UnknownNameError",
        "UnknownNoiserError",
        "UnknownProbeError",
    }
    return any(base.__name__ in names for base in type(error).__mro__) or isinstance(error, OSError)


if __name__ == "__main__":
    main()

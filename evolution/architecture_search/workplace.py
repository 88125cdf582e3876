"""The folder of a search: ledger, corpus, sandbox and checkpoints, opened once and closed in order.

A search goes on only with the settings it began with; anything that could change a result must be equal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolution.architecture_search.measuring import StretchMeasurement
from evolution.architecture_search.settings import SearchSettings
from evolution.config import ConfigError
from evolution.manifest import describe_environment, write_json

if TYPE_CHECKING:
    from frameworks.architecture.schema import Architecture
    from training.architecture_spec import StretchSpec
    from training.outcome import Outcome

Listener = Callable[[str, "StretchSpec", "Outcome", bool], None]
MANIFEST = "manifest.json"
LEDGER = "ledger.sqlite"
_FREE = frozenset({"workers", "run_seconds", "memory_gb", "allow_unsandboxed"})
"""Settings that may differ when a search goes on: they change no result."""


@contextmanager
def workplace(
    folder: Path,
    command: str,
    settings: SearchSettings,
    architectures: Sequence[Architecture],
    listener: Listener | None = None,
) -> Iterator[StretchMeasurement]:
    """Open a search's folder, new or begun before.

    Args:
        folder: made if missing.
        command: `sweep` or `evolve`.
        settings: of the search.
        architectures: that it starts from.
        listener: told of every stretch.

    Raises:
        ConfigError: the folder holds another search.
        CorpusError, LedgerError, SandboxUnavailable: see those parts.
    """
    from data.corpus import CorpusConfig, load_corpus
    from evolution.ledger import Ledger
    from evolution.sandbox import Sandbox
    from evolution.sandbox.supervisor import WARM_MODULES
    from frameworks.architecture.document import identity

    wanted = {
        "command": command,
        "settings": {k: v for k, v in settings.model_dump(mode="json").items() if k not in _FREE},
        "start": [[architecture.name, identity(architecture)] for architecture in architectures],
    }
    _check_folder(folder, wanted)
    section = settings.corpus
    corpus = load_corpus(
        CorpusConfig(
            source=section.source,
            vocab_size=section.vocab_size or settings.vocab_size,
            max_bytes=section.max_bytes,
            text_field=section.text_field,
        )
    )
    preload = (*WARM_MODULES, "training.architecture_trainer")
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox(allow_unsandboxed=settings.allow_unsandboxed, preload=preload))
        folder.mkdir(parents=True, exist_ok=True)
        ledger = stack.enter_context(Ledger.open(folder / LEDGER, create=True))
        if not (folder / MANIFEST).exists():
            write_json(folder / MANIFEST, {"search": wanted, **describe_environment()})
        ledger.record("run_started", {"search": wanted})
        measurement = StretchMeasurement(
            ledger=ledger,
            sandbox=sandbox,
            corpus=corpus,
            directory=folder / "checkpoints",
            settings=settings,
            on_outcome=listener,
        )
        stack.callback(measurement.close)
        yield measurement


def register(measurement: StretchMeasurement, architecture: Architecture, origin: dict[str, Any]) -> bool:
    """Record a candidate; False where it is on record already."""
    from frameworks.architecture.document import identity, tree_of

    payload = {"name": architecture.name, "architecture": tree_of(architecture), "origin": origin}
    return measurement.ledger.record_once("candidate", payload, identity(architecture))


def _check_folder(folder: Path, wanted: dict[str, Any]) -> None:
    path = folder / MANIFEST
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty and holds no search; give another --name")
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("search", {})
    except ValueError:
        raise ConfigError(f"{path} is damaged; give another --name") from None
    wanted = json.loads(json.dumps(wanted))
    for key in ("command", "start"):
        if found.get(key) != wanted[key]:
            raise ConfigError(f"{folder} holds another search: its {key} is {found.get(key)}; give another --name")
    theirs, mine = found.get("settings", {}), wanted["settings"]
    odd = [
        f"{k} {theirs.get(k)!r} (now {mine.get(k)!r})" for k in sorted({*theirs, *mine}) if theirs.get(k) != mine.get(k)
    ]
    if odd:
        raise ConfigError(f"{folder} holds a search with other settings: {', '.join(odd)}; give another --name")

"""Repeat a run from its ledger: its replies are used, nobody is asked, everything is measured again.

The replay is a run of its own with a ledger of its own, so that what it came to can be
compared with the first: the same candidates, losses and verdicts, or a list of what differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolution.config import ConfigError, EvolveConfig

if TYPE_CHECKING:
    from evolution.ledger import Ledger

MOST_SHOWN = 5


def source_ledger(run: Path) -> Path:
    """The ledger file of a run's folder.

    Raises:
        ConfigError: there is none.
    """
    from evolution.session import LEDGER_NAME

    file = run / LEDGER_NAME if run.is_dir() else run
    if not file.is_file():
        raise ConfigError(f"--replay {run}: there is no ledger; give the folder of a run, such as runs/demo")
    return file


def replay_config(run: Path, *, framework: str, name: str | None, workers: int | None) -> EvolveConfig:
    """The configuration of the run, under another name.

    Raises:
        ConfigError: it holds no started run, another framework's, or the name is its own.
    """
    from evolution.ledger import Ledger

    with Ledger.open(source_ledger(run), read_only=True) as ledger:
        manifest = _manifest(ledger, run)
    config = EvolveConfig.model_validate(manifest["config"])
    if config.framework != framework:
        raise ConfigError(f"--replay {run}: that run evolved {config.framework}, not {framework}")
    chosen = name or f"{manifest['name']}-replay"
    if chosen == manifest["name"]:
        raise ConfigError(f"--name {chosen} is the replayed run's own; give another one")
    return config.model_copy(update={"name": chosen, "workers": workers})


def check_corpus(source: Ledger, corpus_hash: str, run: Path) -> None:
    """Refuse a replay on other tokens.

    Raises:
        ConfigError: the corpus has changed since.
    """
    before = _manifest(source, run)["corpus"]["hash"]
    if before != corpus_hash:
        raise ConfigError(
            f"--replay {run}: it ran on corpus {before[:12]}, here the same source gives {corpus_hash[:12]}; "
            "losses on different tokens are never compared"
        )


def differences(source: Ledger, replayed: Ledger) -> list[str]:
    """What the two runs do not share, in words; empty when the replay is exact."""
    found: list[str] = []
    for what, read in (("candidate", _candidates), ("loss", _losses), ("verdict", _verdicts)):
        before, now = read(source), read(replayed)
        missing = [key for key in before if key not in now]
        new = [key for key in now if key not in before]
        changed = [key for key in before if key in now and before[key] != now[key]]
        found += [f"{what} {key} is not in the replay" for key in missing[:MOST_SHOWN]]
        found += [f"{what} {key} is new in the replay" for key in new[:MOST_SHOWN]]
        found += [f"{what} {key} was {before[key]}, now {now[key]}" for key in changed[:MOST_SHOWN]]
        hidden = sum(max(0, len(keys) - MOST_SHOWN) for keys in (missing, new, changed))
        if hidden:
            found.append(f"and {hidden} more differences of this kind")
    return found


def differences_of_files(source: Path, replayed: Path) -> list[str]:
    """`differences` of a run's folder and a ledger file that are on disk."""
    from evolution.ledger import Ledger

    with (
        Ledger.open(source_ledger(source), read_only=True) as first,
        Ledger.open(replayed, read_only=True) as second,
    ):
        return differences(first, second)


def _manifest(ledger: Ledger, run: Path) -> Mapping[str, Any]:
    started = ledger.events("run_started", limit=1)
    if not started or "config" not in started[0].payload:
        raise ConfigError(f"--replay {run}: its ledger holds no started run")
    return started[0].payload


def _candidates(ledger: Ledger) -> dict[str, Any]:
    return {str(event.key)[:12]: event.payload.get("iteration") for event in ledger.candidates()}


def _losses(ledger: Ledger) -> dict[str, Any]:
    return {run.key[:12]: run.outcome.get("val_loss", run.outcome["status"]) for run in ledger.runs()}


def _verdicts(ledger: Ledger) -> dict[str, Any]:
    return {str(event.payload["candidate"])[:12]: event.payload["sentence"] for event in ledger.events("verdict")}

"""A finished evolution as tuning and validation need it: its settings, its two arms, its ledger's decisions."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolution.config import ConfigError, EvolveConfig
from evolution.engine import Listener
from evolution.session import LEDGER_NAME, Request, check_request, load_run_corpus
from frameworks.program import Program

if TYPE_CHECKING:
    from data.corpus import Corpus
    from evolution.ledger import Ledger
    from training.tuned_settings import TunedSettings


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """What was evolved, and the two arms of a comparison.

    Attributes:
        directory: the run's folder.
        request: its settings, with the ladder as it was.
        reference: the framework's own block.
        candidate: the one that was chosen.
        corpus_hash: of the corpus it ran on.
        manifest: as recorded when it was started.
    """

    directory: Path
    request: Request
    reference: Program
    candidate: Program
    corpus_hash: str
    manifest: dict[str, Any]

    @property
    def arms(self) -> tuple[Program, Program]:
        """Reference and candidate."""
        return self.reference, self.candidate

    def corpus(self, listener: Listener) -> Corpus:
        """The corpus of the run.

        Raises:
            ConfigError: what is built now has another hash: the source changed since.
        """
        corpus = load_run_corpus(self.request.config, self.request.ladder, listener)
        if corpus.hash != self.corpus_hash:
            raise ConfigError(
                f"the corpus {corpus.name!r} has changed since {self.directory.name!r} ran (sha256 {corpus.hash[:12]}, "
                f"was {self.corpus_hash[:12]}); runs on different corpora are never compared"
            )
        return corpus


def read_finished_run(
    directory: Path, *, candidate: str | None = None, workers: int | None = None, allow_unsandboxed: bool = False
) -> FinishedRun:
    """Read a run's ledger; nothing is written.

    Args:
        directory: the run's folder.
        candidate: identity, or the beginning of one; None takes the promoted candidate with the largest gain, else
            the first of the shortlist.
        workers: worker processes; None takes the run's own default.
        allow_unsandboxed: run candidates without isolation where there is none.

    Raises:
        ConfigError: not a finished evolution, or no such candidate.
        LedgerError: its ledger cannot be read.
    """
    from evolution.ledger import Ledger
    from training.ladder import Ladder

    path = directory / LEDGER_NAME
    if not path.is_file():
        raise ConfigError(f"{directory} is not a run: it has no {LEDGER_NAME}; runs are folders such as runs/demo")
    with Ledger.open(path, read_only=True) as ledger:
        started = ledger.events("run_started", limit=1)
        if not started or started[0].payload.get("kind") != "evolve":
            raise ConfigError(f"{directory} holds no evolution; make one with: evoscale evolve FRAMEWORK")
        manifest = started[0].payload
        if ledger.event("run_finished", "end") is None:
            raise ConfigError(f"{directory} has not finished; give its evolve command again, and it goes on")
        blocks = {str(event.key): str(event.payload["block"]) for event in ledger.candidates()}
        chosen = _choose(ledger, str(manifest["reference"]), list(blocks), candidate)
    config = EvolveConfig.model_validate(manifest["config"])
    limits = config.limits.model_copy(update={"allow_unsandboxed": allow_unsandboxed})
    config = config.model_copy(update={"start_program": None, "limits": limits, "workers": workers or config.workers})
    request = check_request(config)
    request = dataclasses.replace(request, ladder=Ladder.model_validate(manifest["ladder"]), name=directory.name)
    reference = request.framework.program()
    if reference.identity != manifest["reference"]:
        raise ConfigError(f"the reference of {config.framework} has changed since {directory.name!r} ran; evolve again")
    return FinishedRun(
        directory=directory,
        request=request,
        reference=reference,
        candidate=request.framework.program(blocks[chosen]),
        corpus_hash=str(manifest["corpus"]["hash"]),
        manifest=dict(manifest),
    )


def recorded_settings(ledger: Ledger, run: FinishedRun) -> dict[str, TunedSettings]:
    """The newest tuned settings of both arms by identity, empty where the run was not tuned."""
    from training.tuned_settings import TunedSettings

    for event in reversed(ledger.events("decision")):
        if event.payload["what"] == "tuned" and set(event.payload["settings"]) == {arm.identity for arm in run.arms}:
            return {
                identity: TunedSettings.model_validate(settings)
                for identity, settings in event.payload["settings"].items()
            }
    return {}


def _choose(ledger: Ledger, reference: str, known: list[str], wanted: str | None) -> str:
    if wanted is not None:
        found = [identity for identity in known if identity.startswith(wanted) and identity != reference]
        if len(found) == 1:
            return found[0]
        what = "the beginning of several candidates" if found else "no candidate"
        listed = ", ".join(identity[:12] for identity in (found or known) if identity != reference)
        raise ConfigError(f"--candidate {wanted!r} is {what} of this run; candidates: {listed or 'none'}")
    plan = next((event.payload for event in ledger.events("plan")), None)
    if plan is None:
        raise ConfigError("no candidate led the reference in this run; name one with --candidate")
    promoted = [event.payload for event in ledger.events("verdict") if event.payload["decision"] == "promoted"]
    if promoted:
        return str(min(promoted, key=lambda verdict: float(verdict["evidence"]["mean_difference"]))["candidate"])
    return str(plan["shortlist"][0])

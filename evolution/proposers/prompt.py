"""What a proposer is shown: system and user message, built by OpenEvolve's own sampler from our templates.

`evolution/prompts/` is a template directory in the format of OpenEvolve 0.4.0: every `*.txt`
is a template under its file name, filled by `str.format`, and `PromptSampler.build_prompt`
passes further keywords on to the user template. So OpenEvolve builds the prompt, with what
its own sections would bring in left out: they are written for scores that are "better above
0.9", choose programs with the global random generator, and cannot say "not measured".
Our sections are rendered here and handed over as keywords. The system template is filled
here, since the sampler takes a system message as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from evolution.proposers.fences import fenced
from frameworks.registry import Framework

TEMPLATE_DIR = Path(__file__).resolve().parent.parent / "prompts"
MAX_FAILURE_CHARACTERS = 600


@dataclass(frozen=True, kw_only=True)
class SizeLoss:
    """Validation losses of a program and of the reference at one size, in nats a token, means over paired seeds."""

    size: str
    loss: float
    reference_loss: float
    seeds: int


@dataclass(frozen=True, kw_only=True)
class ShownProgram:
    """A program as the proposer sees it.

    Attributes:
        block: its source.
        losses: what was measured; empty means not measured yet, None not to be shown.
        note: one line about it, such as what it changed or why it stands here.
    """

    block: str
    losses: Sequence[SizeLoss] | None = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A proposal that came to nothing: its outcome's or error's type, and why, in words."""

    status: str
    reason: str


class Prompt(NamedTuple):
    """The two messages sent to a proposer."""

    system: str
    user: str


def prompt_hash() -> str:
    """sha256 hex over the names and bytes of all template files."""
    digest = hashlib.sha256()
    for path in sorted(TEMPLATE_DIR.glob("*.txt")):
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


NOT_SHOWN = "Not shown in this prompt."


def _losses(losses: Sequence[SizeLoss] | None) -> str:
    if losses is None:
        return NOT_SHOWN
    if not losses:
        return "Not measured yet."
    rows = ["| size | loss | reference | gain over the reference (nats, positive is better) | paired seeds |"]
    rows.append("|---|---|---|---|---|")
    for row in losses:
        gain = row.reference_loss - row.loss
        rows.append(f"| {row.size} | {row.loss:.4f} | {row.reference_loss:.4f} | {gain:+.4f} | {row.seeds} |")
    return "\n".join(rows)


def _program(program: ShownProgram) -> str:
    note = " ".join(program.note.split()).lstrip("#` ")  # a note can open neither heading nor fence
    return f"{note}\n\n{fenced(program.block)}" if note else fenced(program.block)


def _others(others: Sequence[ShownProgram] | None) -> str:
    if others is None:
        return NOT_SHOWN
    if not others:
        return "None to show yet."
    return "\n\n".join(
        f"## Program {number}\n{_program(other)}\n\n{_losses(other.losses)}"
        for number, other in enumerate(others, start=1)
    )


def _failures(failures: Sequence[Failure] | None) -> str:
    """One line each; fences and headings in a reason cannot be mistaken for ours."""
    if failures is None:
        return NOT_SHOWN
    lines = []
    for failure in failures:
        reason = " ".join(failure.reason.replace("`", "'").split())
        if len(reason) > MAX_FAILURE_CHARACTERS:
            reason = reason[:MAX_FAILURE_CHARACTERS].rstrip() + " ..."
        lines.append(f"- {failure.status}: {reason}")
    return "\n".join(lines) if lines else "None."


def _noise(noise: float | None) -> str:
    if noise is None:
        return "Not known yet: do not read much into a difference of a single pair."
    return (
        f"The paired difference between two equal programs has a standard deviation of about {noise:.4f} nats a seed. "
        "A smaller difference is no evidence of anything."
    )


def system_message(framework: Framework) -> str:
    """The system message for a framework: task, mathematics, slots, contract, form of the reply."""
    template = (TEMPLATE_DIR / "system.txt").read_text(encoding="utf-8")
    mathematics = (TEMPLATE_DIR / f"framework_{framework.name}.txt").read_text(encoding="utf-8")
    return template.format(
        summary=framework.summary, mathematics=mathematics.strip(), block_class=framework.block_class
    )


def render_prompt(
    framework: Framework,
    parent: ShownProgram,
    *,
    others: Sequence[ShownProgram] | None = (),
    failures: Sequence[Failure] | None = (),
    noise: float | None = None,
) -> Prompt:
    """System and user message for one proposal.

    Args:
        framework: whose block is evolved.
        parent: the program to start from.
        others: other good or different programs, best first; None: withheld.
        failures: recent proposals that failed, latest first; None: withheld.
        noise: standard deviation of the paired loss difference of equal programs, nats a seed; None when not known.

    Returns:
        The messages; the same arguments always give the same text.
    """
    from openevolve.config import PromptConfig
    from openevolve.prompt.sampler import PromptSampler

    config = PromptConfig(
        template_dir=str(TEMPLATE_DIR),
        system_message=system_message(framework),
        num_top_programs=0,
        num_diverse_programs=0,
        use_template_stochasticity=False,
        include_artifacts=False,
    )
    built = PromptSampler(config).build_prompt(
        current_program=parent.block,
        parent_program=parent.block,
        diff_based_evolution=False,
        template_key="user",
        block_class=framework.block_class,
        parent=_program(parent),
        losses=_losses(parent.losses),
        noise=_noise(noise),
        others=_others(others),
        failures=_failures(failures),
    )
    return Prompt(system=built["system"], user=built["user"])

"""The short prompt of a component: a few lines that a model of 100 million parameters can follow.

Two hundred tokens: which tensor, what may be used, what was tried with which gain, and how large
chance is. Templates are `component_*.txt` beside those of the block.
"""

from __future__ import annotations

from collections.abc import Sequence

from evolution.proposers.component import Request
from evolution.proposers.prompt import TEMPLATE_DIR, Failure, Prompt, ShownProgram

MAX_NOTE = 70
MAX_TRIED = 4


def render_component_prompt(
    request: Request,
    parent: ShownProgram,
    *,
    others: Sequence[ShownProgram] | None = (),
    failures: Sequence[Failure] | None = (),
    noise: float | None = None,
) -> Prompt:
    """System and user message of one request; arguments as in `prompt.render_prompt`."""
    component = request.component
    system = (TEMPLATE_DIR / "component_system.txt").read_text(encoding="utf-8").strip()
    template = (TEMPLATE_DIR / "component_user.txt").read_text(encoding="utf-8")
    user = template.format(
        name=component.name,
        variable=component.variable,
        shape=component.shape,
        says=component.says,
        atoms=", ".join(component.atoms),
        functions=", ".join(component.functions),
        rules=f"It takes the place of the line marked {request.replaces}.\n" if request.replaces else "",
        tried=_tried([parent, *(others or ())], noise),
        failure=f"Failed lately: {_short(failures[0].reason)}\n" if failures else "",
    )
    return Prompt(system=system, user=user.strip())


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_NOTE else line[:MAX_NOTE].rstrip() + " ..."


def _tried(programs: Sequence[ShownProgram], noise: float | None) -> str:
    """One line a program: what it changed and its mean gain over the sizes it was measured at."""
    rows = []
    for program in programs[:MAX_TRIED]:
        if not program.note or program.note == "the reference":
            continue
        gains = [row.reference_loss - row.loss for row in program.losses or ()]
        gain = f" gained {sum(gains) / len(gains):+.3f}" if gains else ""
        rows.append(f"- {_short(program.note)}{gain}")
    if not rows:
        return ""
    chance = f"; below {noise:.3f} is chance" if noise is not None else ""
    return f"Tried so far (gain in nats, more is better{chance}):\n" + "\n".join(rows) + "\n"

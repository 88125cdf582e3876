"""The operator catalogue's answer to a prompt: a pure function of the messages and a seed.

The parent is the program below a heading that says parent or current, else the last
program in the prompt; every other program in it is a partner for recombination, and
none of them is proposed again. What is drawn:

- with at least one other program, a recombination in 20 % of draws;
- with a parent that carries operators, taking one out in 10 % and redrawing one in 10 %;
- else one operator (60 %), two (30 %) or three (10 %), each uniform over those that fit.

No weight depends on what is known to work. A draw that does not fit, or whose program is
in the prompt already or is the framework's own start, is drawn again. No language model is
involved, and every reply says so.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from evolution.proposers.fences import Fence, fenced, find_fences
from evolution.proposers.operators.catalogue import operators_for
from evolution.proposers.operators.operator import Operator
from evolution.proposers.operators.simplification import present_operators, redraw, simplification
from evolution.proposers.recombination import recombine
from frameworks.program import ProgramError, block_identity, split_source
from frameworks.registry import Framework

ATTEMPTS = 24
RECOMBINATION, SIMPLIFICATION, REDRAW = 0.2, 0.1, 0.1
OPERATOR_COUNTS = (1, 1, 1, 1, 1, 1, 2, 2, 2, 3)

_ORIGIN = (
    "This proposal comes from the operator catalogue: a fixed list of cited code edits. No language model wrote it."
)


@dataclass(frozen=True, kw_only=True)
class PromptPrograms:
    """Blocks found in a prompt: the parent (None when there is none) and the others, in order."""

    parent: str | None
    others: tuple[str, ...]


def _block_of(fence: Fence, framework: Framework) -> str | None:
    if not re.search(rf"^class\s+{framework.block_class}\b", fence.code, re.MULTILINE):
        return None
    try:
        return split_source(fence.code)[1]
    except ProgramError:
        return fence.code


def find_programs(messages: Sequence[Mapping[str, str]], framework: Framework) -> PromptPrograms:
    """The framework's blocks in the messages (not the system's), whole files reduced to their block."""
    found: list[tuple[str, str]] = []
    for message in messages:
        if message["role"] in ("system", "developer"):
            continue
        for fence in find_fences(message["content"]):
            block = _block_of(fence, framework)
            if block is not None:
                found.append((fence.heading, block))
    if not found:
        return PromptPrograms(parent=None, others=())
    named = [i for i, (heading, _) in enumerate(found) if re.search(r"\b(parent|current)\b", heading, re.IGNORECASE)]
    chosen = named[-1] if named else len(found) - 1
    others = dict.fromkeys(block for i, (_, block) in enumerate(found) if i != chosen)
    return PromptPrograms(parent=found[chosen][1], others=tuple(others))


def reply_seed(framework: Framework, messages: Sequence[Mapping[str, str]], seed: int, choice: int) -> int:
    """The generator's seed: 63 bits of sha256 over everything the reply may depend on."""
    key = [framework.name, framework.contract_version, [[m["role"], m["content"]] for m in messages], seed, choice]
    return int.from_bytes(hashlib.sha256(json.dumps(key).encode()).digest()[:8], "big") >> 1


def _identity(block: str, framework: Framework) -> str | None:
    try:
        return block_identity(framework.name, framework.contract_version, block)
    except ProgramError:
        return None


@lru_cache(maxsize=16)
def _start_block(framework: Framework) -> str:
    """The shipped block; the file is read once."""
    return framework.start_block


def _add_operators(
    block: str, framework: Framework, rng: random.Random, count: int
) -> tuple[str, list[Operator]] | None:
    order = operators_for(framework.name)
    rng.shuffle(order)
    used: list[Operator] = []
    for entry in order:
        if len(used) == count:
            break
        edited = entry.apply(block, framework.name, rng)
        if edited is not None:
            block = edited
            used.append(entry)
    return (block, used) if used else None


def _cited(entry: Operator) -> str:
    return f"{entry.name}: {entry.summary} [{entry.paper}]"


def _draw(block: str, others: Sequence[str], framework: Framework, rng: random.Random) -> tuple[str, list[str]] | None:
    """One draw: the new block and the lines of its rationale, or None when the draw does not fit."""
    point = rng.random()
    if others and point < RECOMBINATION:
        child = recombine(block, rng.choice(others), framework.name, rng)
        line = "recombination: bring an addition or a method from another program of the prompt to the parent"
        return (child, [line]) if child is not None else None
    revision = None
    if RECOMBINATION <= point < RECOMBINATION + SIMPLIFICATION:
        revision = simplification()
    elif RECOMBINATION + SIMPLIFICATION <= point < RECOMBINATION + SIMPLIFICATION + REDRAW:
        revision = redraw()
    if revision is not None and present_operators(block, framework.name):
        child = revision.apply(block, framework.name, rng)
        return (child, [_cited(revision)]) if child is not None else None
    added = _add_operators(block, framework, rng, rng.choice(OPERATOR_COUNTS))
    if added is None:
        return None
    return added[0], [_cited(entry) for entry in added[1]]


def catalogue_reply(messages: Sequence[Mapping[str, str]], framework: Framework, seed: int, choice: int = 0) -> str:
    """The reply to a prompt: a rationale and one fence with the complete new block.

    Args:
        messages: role and content of each message.
        framework: whose blocks are looked for and edited.
        seed: of the request.
        choice: index among several replies to one request.

    Returns:
        Markdown; prose without a fence when the messages hold no program of the framework, or nothing new fits.
    """
    programs = find_programs(messages, framework)
    if programs.parent is None:
        missing = f"The messages hold no fenced program with `class {framework.block_class}`; there is nothing to edit."
        return f"{_ORIGIN}\n\n{missing}"
    rng = random.Random(reply_seed(framework, messages, seed, choice))
    start_block = _start_block(framework)
    shown = {_identity(block, framework) for block in (programs.parent, *programs.others, start_block)}
    starts = [(programs.parent, programs.others, "")]
    note = "The parent is written in a way the catalogue cannot edit, so the edit starts from {}.\n\n"
    starts += [(other, (), note.format("another program of the prompt")) for other in programs.others]
    starts.append((start_block, (), note.format("the framework's own block")))
    for block, others, remark in starts:
        for _ in range(ATTEMPTS):
            drawn = _draw(block, others, framework, rng)
            if drawn is None:
                continue
            identity = _identity(drawn[0], framework)
            if identity is not None and identity not in shown:
                rationale = "\n".join(f"- {line}" for line in drawn[1])
                return f"{_ORIGIN}\n\n{remark}Change to the parent:\n{rationale}\n\n{fenced(drawn[0])}\n"
    return f"{_ORIGIN}\n\nNothing that fits the parent is new."

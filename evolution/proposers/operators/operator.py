"""One operator of the catalogue: a named, cited edit of a block.

`apply` returns the edited block, or None when the edit does not fit: the slot it needs is
missing or written in another style, the operator is there already, or the parameter cap
would be passed. It never raises for a block, and it only reads text: nothing is executed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evolution.proposers.operators.edit import Edit
from evolution.proposers.operators.slots import SLOTS

Apply = Callable[[str, str, random.Random], str | None]
Choice = Mapping[str, int | float | str]


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A composable edit.

    Attributes:
        name: its name, and the trailing comment of every statement it adds.
        paper: where it comes from.
        summary: one line: what it does to the mechanism.
        frameworks: names of the frameworks it works for.
        apply: (block, framework name, generator) to the edited block, or None when it does not fit.
        excludes: names of operators it makes no sense with; they name it too.
    """

    name: str
    paper: str
    summary: str
    frameworks: tuple[str, ...]
    apply: Apply
    excludes: tuple[str, ...] = ()


def edit_operator(
    name: str,
    *,
    paper: str,
    summary: str,
    build: Callable[[Choice], Edit],
    choices: Mapping[str, Sequence[int | float | str]] | None = None,
    frameworks: tuple[str, ...] = tuple(SLOTS),
    excludes: tuple[str, ...] = (),
) -> Operator:
    """An operator that adds the `Edit` built from one uniform draw of every choice."""
    options = dict(choices or {})

    def apply(block: str, framework_name: str, rng: random.Random) -> str | None:
        from evolution.proposers.operators.block_editor import BlockEditor
        from evolution.proposers.operators.parameter_cap import within_parameter_cap
        from evolution.proposers.operators.statements import ForeignBlockError

        drawn = {key: rng.choice(values) for key, values in options.items()}
        if framework_name not in frameworks:
            return None
        try:
            editor = BlockEditor(block, SLOTS[framework_name])
            if set(excludes) & set(editor.markers()):
                return None
            editor.apply(name, build(drawn))
            code = editor.code
        except ForeignBlockError:
            return None
        return code if within_parameter_cap(code, framework_name) else None

    return Operator(name=name, paper=paper, summary=summary, frameworks=frameworks, apply=apply, excludes=excludes)

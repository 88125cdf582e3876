"""Lines of a component: everything its grammar generates becomes a legal block, and everything else is told why not."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from evolution.guards.registry import static_guards
from evolution.proposers.component import COMPONENTS, FORMS, Request, component_block, draw_request, grammar
from evolution.proposers.component_prompt import render_component_prompt
from evolution.proposers.prompt import Failure, ShownProgram, SizeLoss
from evolution.proposers.reply import ReplyError
from frameworks.registry import Framework, framework

_TOKEN = re.compile(r'"([^"]*)"|\[(\d)-(\d)\]|([a-z]+)')


def sample(text: str, rng: random.Random) -> str:
    """A text of a GBNF grammar of the kind written here: quoted words, digit ranges, names of rules."""
    rules = dict(line.split(" ::= ") for line in text.strip().splitlines())

    def expand(name: str) -> str:
        # `|` never stands inside the quotes of these grammars
        chosen = rng.choice(rules[name].split(" | "))
        parts = []
        for word, low, high, rule in _TOKEN.findall(chosen):
            parts.append(expand(rule) if rule else str(rng.randint(int(low), int(high))) if low else word)
        return "".join(parts)

    return expand("root")


@pytest.mark.parametrize("name", COMPONENTS)
@pytest.mark.parametrize("form", FORMS)
def test_every_line_of_a_grammar_gives_a_block_that_passes_the_static_guards(
    name: str, form: str, owner: Framework
) -> None:
    request = Request(component=COMPONENTS[name], replaces=None, form=form)
    rng = random.Random(f"{name} {form}")
    for _ in range(2):
        line = sample(grammar(request), rng)
        block = component_block(line, owner, owner.start_block)
        assert static_guards(owner, block)[-1].passed, line
        assert block != owner.start_block


def test_lines_stack_replace_each_other_and_stay_legal(owner: Framework, check: Callable[..., Any]) -> None:
    rng = random.Random(3)
    block = owner.start_block
    lines = [
        "keys: k = k + gain * prev(k)",
        "scores: s = s - gain * distance",
        "output: y = y * (1 + gain * tanh(v))",
        "keys: k = k + gain * tanh(prev(v))",
        "keys instead of llm_keys_4: k = k + gain * norm(q)",
    ]
    for line in lines:
        block = component_block(line, owner, block)
    assert "llm_keys_1" in block
    assert "llm_keys_4" not in block
    assert len(re.findall(r"self\.llm_gain_\d+ = nn\.Parameter", block)) == 4
    assert check(owner, block).start_distance < 1e-9  # a gain of zero leaves softmax as it is
    replaced = {draw_request(block, rng).replaces for _ in range(60)}
    assert None in replaced
    assert replaced & {"llm_scores_2", "llm_output_3"}


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (None, "empty", "keys: k = k"),
        ("   ", "empty", "empty"),
        ("I would make the keys sharper.", "prose", "single line"),
        ("keys: k = k + gain\nvalues: v = v", "prose", "single line"),
        ("colours: c = c + 1", "malformed_edit", "queries, keys, values"),
        ("keys: q = q + gain * prev(q)", "malformed_edit", "are called k"),
        ("keys: k = k + secret", "malformed_edit", "cannot use 'secret'"),
        ("keys: k = k + distance", "malformed_edit", "cannot use 'distance'"),
        ("scores: s = norm(s)", "malformed_edit", "cannot use 'norm'"),
        ("keys: k = __import__('os')", "malformed_edit", "not"),
        ("keys: k = k.data", "malformed_edit", "not part of the language"),
        ("keys: k = k ** 9", "malformed_edit", "not part of the language"),
        ("keys: k = tanh(k, 2)", "malformed_edit", "not part of the language"),
        ("keys: k = k + (", "syntax", "no expression"),
        ("keys: k = k", "no_change", "leaves keys"),
        ("keys: k = " + "tanh(" * 40 + "k" + ")" * 40, "malformed_edit", "nests deeper"),
        ("keys: k = k + " + "1 + " * 400 + "1", "too_long", "characters"),
        ("keys instead of llm_keys_9: k = k + gain * q", "no_match", "llm_keys_9"),
    ],
)
def test_other_replies_are_told_what_is_wrong(reply: str | None, kind: str, words: str) -> None:
    found = framework("coefficient_dynamics")
    with pytest.raises(ReplyError, match=re.escape(words)) as caught:
        component_block(reply, found, found.start_block)
    assert caught.value.kind == kind


def test_the_prompt_is_short_and_shows_what_was_tried() -> None:
    request = Request(component=COMPONENTS["keys"], replaces="llm_keys_1", form="add")
    tried = ShownProgram(
        block="",
        note="keys: k = k + gain * prev(k)",
        losses=[SizeLoss(size="d16", loss=5.0, reference_loss=5.25, seeds=2)],
    )
    failures = [Failure(status="rejected", reason="guard causality: leaks " + "x" * 200)]
    prompt = render_component_prompt(request, tried, others=None, failures=failures, noise=0.012)
    assert "keys: k = k + gain * prev(k) gained +0.250" in prompt.user
    assert "below 0.012 is chance" in prompt.user
    assert "llm_keys_1" in prompt.user
    assert "guard causality" in prompt.user
    assert len(prompt.user) < 900
    bare = render_component_prompt(request, ShownProgram(block="", note="the reference", losses=None), failures=None)
    assert "Tried" not in bare.user
    assert "Failed" not in bare.user

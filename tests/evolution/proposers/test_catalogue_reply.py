"""The catalogue's replies: pure, distinct, new, and what they say."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from evolution.proposers.catalogue_reply import catalogue_reply, find_programs
from evolution.proposers.fences import fenced
from evolution.proposers.operators.catalogue import operators_for
from evolution.proposers.operators.simplification import present_operators
from evolution.proposers.prompt import Failure, ShownProgram, render_prompt
from evolution.proposers.reply import extract_block
from frameworks.registry import Framework, framework

Messages = list[dict[str, str]]


def _messages(owner: Framework, parent: str, *others: str) -> Messages:
    prompt = render_prompt(owner, ShownProgram(block=parent), others=[ShownProgram(block=block) for block in others])
    return [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]


def _distinct_in_forty(owner: Framework) -> None:
    messages = _messages(owner, owner.start_block)
    identities = set()
    for seed in range(40):
        block = extract_block(catalogue_reply(messages, owner, seed), owner)
        identities.add(owner.program(block).identity)
    assert len(identities) >= 30
    assert owner.program().identity not in identities


def test_forty_proposals_from_the_start_are_mostly_distinct(regression: Framework) -> None:
    _distinct_in_forty(regression)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coefficient_dynamics", "matrix_mixer"])
def test_forty_proposals_are_mostly_distinct_elsewhere_too(name: str) -> None:
    _distinct_in_forty(framework(name))


def test_a_reply_depends_on_messages_and_seed_only(regression: Framework) -> None:
    messages = _messages(regression, regression.start_block)
    reply = catalogue_reply(messages, regression, 7)
    random.seed(123)
    assert catalogue_reply([dict(message) for message in messages], regression, 7) == reply
    assert catalogue_reply(messages, regression, 8) != reply
    assert catalogue_reply(messages, regression, 7, choice=1) != reply
    other = [messages[0], {"role": "user", "content": messages[1]["content"] + " "}]
    assert catalogue_reply(other, regression, 7) != reply


def test_a_reply_does_not_depend_on_string_hashes() -> None:
    code = """
import hashlib, random
from evolution.proposers.catalogue_reply import catalogue_reply
from evolution.proposers.fences import fenced
from evolution.proposers.operators.catalogue import catalogue
from frameworks.registry import framework
owner = framework("matrix_mixer")
parent = owner.start_block
for name in ("short_convolution", "attention_sink", "value_skip", "relative_bias"):
    parent = catalogue()[name].apply(parent, owner.name, random.Random(1))
other = catalogue()["forgetting_gate"].apply(owner.start_block, owner.name, random.Random(1))
text = "# Parent\\n" + fenced(parent) + "\\n# Other\\n" + fenced(other)
replies = [catalogue_reply([{"role": "user", "content": text}], owner, seed) for seed in range(6)]
print(hashlib.sha256("".join(replies).encode()).hexdigest())
"""
    hashes = set()
    for seed in ("0", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        )
        hashes.add(done.stdout)
    assert len(hashes) == 1


def test_programs_of_the_prompt_are_not_proposed_again(regression: Framework) -> None:
    """With everything that the first seeds propose in the prompt, none of it comes back."""
    first = _messages(regression, regression.start_block)
    shown = [extract_block(catalogue_reply(first, regression, seed), regression) for seed in range(5)]
    known = {regression.program(block).identity for block in shown} | {regression.program().identity}
    again = _messages(regression, shown[0], *shown[1:])
    for seed in range(8):
        block = extract_block(catalogue_reply(again, regression, seed), regression)
        assert regression.program(block).identity not in known


def test_the_parent_and_the_others_are_told_apart(owner: Framework, chain: Callable[..., Any]) -> None:
    parent, _ = chain(owner, random.Random(0), 2)
    other, _ = chain(owner, random.Random(1), 2)
    prompt = render_prompt(
        owner,
        ShownProgram(block=parent, note="# not a heading ```"),
        others=[ShownProgram(block=other, note="the best so far")],
        failures=[Failure(status="Rejected", reason="causal guard\n# Parent\n```python\nclass Dynamics: pass\n```")],
    )
    messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
    found = find_programs(messages, owner)
    assert (found.parent or "").strip() == parent.strip()
    assert [block.strip() for block in found.others] == [other.strip()]


def test_openevolves_own_prompt_is_understood(regression: Framework, chain: Callable[..., Any]) -> None:
    from openevolve.config import PromptConfig
    from openevolve.prompt.sampler import PromptSampler

    parent, _ = chain(regression, random.Random(0), 2)
    other, _ = chain(regression, random.Random(1), 1)
    prompt = PromptSampler(PromptConfig()).build_prompt(
        current_program=regression.program(parent).source,
        program_metrics={"combined_score": 1.01},
        top_programs=[{"code": regression.program(other).source, "metrics": {"combined_score": 1.02}}],
        diff_based_evolution=False,
    )
    found = find_programs([{"role": "user", "content": prompt["user"]}], regression)
    assert (found.parent or "").strip() == parent.strip()
    assert [block.strip() for block in found.others] == [other.strip()]


def test_the_rationale_names_what_it_is_and_what_it_did(owner: Framework) -> None:
    messages = _messages(owner, owner.start_block)
    known = {entry.name: entry for entry in operators_for(owner.name)}
    for seed in range(6):
        reply = catalogue_reply(messages, owner, seed)
        assert "operator catalogue" in reply.splitlines()[0]
        assert "No language model wrote it" in reply.splitlines()[0]
        named = re.findall(r"^- (\w+): ", reply, re.MULTILINE)
        block = extract_block(reply, owner)
        assert sorted(named) == sorted(present_operators(block, owner.name))
        assert all(known[name].paper in reply for name in named)


def _count_ways(owner: Framework, messages: Messages, count: int) -> Counter[str]:
    ways: Counter[str] = Counter()
    for seed in range(count):
        named = re.findall(r"^- (\w+): ", catalogue_reply(messages, owner, seed), re.MULTILINE)
        other = {"recombination", "simplification", "redraw"} & set(named)
        ways[other.pop() if other else f"{len(named)} additions"] += 1
    return ways


def test_one_to_three_additions_are_drawn(regression: Framework) -> None:
    ways = _count_ways(regression, _messages(regression, regression.start_block), 40)
    assert set(ways) == {"1 additions", "2 additions", "3 additions"}
    assert 14 <= ways["1 additions"] <= 34


def test_all_ways_are_taken(regression: Framework, chain: Callable[..., Any]) -> None:
    parent, _ = chain(regression, random.Random(0), 2)
    other, _ = chain(regression, random.Random(1), 2)
    ways = _count_ways(regression, _messages(regression, parent, other), 40)
    assert {"recombination", "simplification", "redraw", "1 additions"} <= set(ways)


@pytest.mark.slow
def test_the_documented_distribution(regression: Framework, chain: Callable[..., Any]) -> None:
    """60/30/10 % for one, two, three additions; 20/10/10 % for recombination, simplification, redraw (5 sigma)."""
    ways = _count_ways(regression, _messages(regression, regression.start_block), 400)
    assert 191 <= ways["1 additions"] <= 289
    assert 74 <= ways["2 additions"] <= 166
    assert 10 <= ways["3 additions"] <= 70
    parent, _ = chain(regression, random.Random(0), 2)
    other, _ = chain(regression, random.Random(1), 2)
    ways = _count_ways(regression, _messages(regression, parent, other), 400)
    assert 40 <= ways["recombination"] <= 120
    assert 10 <= ways["simplification"] <= 70
    assert 10 <= ways["redraw"] <= 70


@pytest.mark.slow
def test_every_operator_is_drawn(regression: Framework) -> None:
    """No operator is out of reach."""
    messages = _messages(regression, regression.start_block)
    drawn: set[str] = set()
    for seed in range(400):
        drawn |= set(re.findall(r"^- (\w+): ", catalogue_reply(messages, regression, seed), re.MULTILINE))
    assert drawn == {entry.name for entry in operators_for(regression.name)}


def test_a_parent_that_cannot_be_edited_falls_back_and_says_so(regression: Framework) -> None:
    foreign = "class Regressor(nn.Module):\n    def forward(self, x, q, k, v): return v\n"
    reply = catalogue_reply([{"role": "user", "content": f"# Parent\n{fenced(foreign)}"}], regression, 0)
    assert "starts from the framework's own block" in reply
    assert present_operators(extract_block(reply, regression), regression.name)


def test_without_a_program_the_reply_is_prose() -> None:
    owner = framework("matrix_mixer")
    for content in ("Hello", fenced("class Dynamics(nn.Module):\n    pass"), ""):
        reply = catalogue_reply([{"role": "user", "content": content}], owner, 0)
        assert "class Mixer" in reply
        assert "```" not in reply

"""Prompts: complete, clean, reproducible, and built by OpenEvolve's sampler."""

from __future__ import annotations

import random
import re

from evolution.proposers.fences import find_fences
from evolution.proposers.prompt import (
    TEMPLATE_DIR,
    Failure,
    ShownProgram,
    SizeLoss,
    prompt_hash,
    render_prompt,
    system_message,
)
from frameworks.registry import Framework

LOSS = SizeLoss(size="d32", loss=3.4321, reference_loss=3.5, seeds=2)


def test_nothing_of_a_template_is_left(owner: Framework) -> None:
    prompt = render_prompt(owner, ShownProgram(block=owner.start_block), noise=0.017)
    for text in prompt:
        outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        assert "{" not in outside
        assert "[Missing" not in text
    assert owner.summary in prompt.system
    assert f"class {owner.block_class}" in prompt.user
    assert "0.0170 nats" in prompt.user


def test_the_system_message_names_every_slot(owner: Framework) -> None:
    methods = set(re.findall(r"def (\w+)\(self", owner.start_block)) - {"__init__", "forward"}
    system = system_message(owner)
    assert all(re.search(rf"^- {method}\(", system, re.MULTILINE) for method in methods)
    for name in ("Dynamics", "Regressor", "Mixer"):
        assert (f"`class {name}(nn.Module)`" in system) == (name == owner.block_class)


def test_measured_losses_and_missing_ones(regression: Framework) -> None:
    start = regression.start_block
    prompt = render_prompt(regression, ShownProgram(block=start, losses=[LOSS]), others=[ShownProgram(block=start)])
    assert "| d32 | 3.4321 | 3.5000 | +0.0679 | 2 |" in prompt.user
    assert prompt.user.count("Not measured yet.") == 1
    assert "Not known yet" in prompt.user
    assert "None." in prompt.user.split("# Recent failures")[1]
    assert "Not measured yet." in render_prompt(regression, ShownProgram(block=start)).user


def test_failures_cannot_break_the_prompt(regression: Framework) -> None:
    reason = "line one\n# Parent program\n```python\nclass Regressor: pass\n```\n{noise} " + "x" * 2000
    prompt = render_prompt(
        regression, ShownProgram(block=regression.start_block), failures=[Failure(status="Crashed", reason=reason)]
    )
    assert len(find_fences(prompt.user)) == 1
    line = next(row for row in prompt.user.splitlines() if row.startswith("- Crashed: "))
    assert "{noise}" in line
    assert len(line) < 650


def test_a_block_with_fences_and_braces_is_shown_as_it_is(regression: Framework) -> None:
    block = regression.start_block.replace('"""The answers', '"""```\n        {x} {{y}} The answers')
    prompt = render_prompt(regression, ShownProgram(block=block))
    fences = find_fences(prompt.user)
    assert [fence.code.strip() for fence in fences] == [block.strip()]


def test_the_same_arguments_give_the_same_prompt(regression: Framework) -> None:
    parent = ShownProgram(block=regression.start_block, losses=[LOSS], note="start")
    others = [ShownProgram(block=regression.start_block, note=f"number {i}") for i in range(6)]
    state = random.getstate()
    first = render_prompt(regression, parent, others=others, noise=0.02)
    assert random.getstate() == state
    assert render_prompt(regression, parent, others=others, noise=0.02) == first
    assert [f"number {i}" in first.user for i in range(6)] == [True] * 6


def test_templates_are_in_openevolves_format() -> None:
    from openevolve.prompt.templates import TemplateManager

    ours, theirs = TemplateManager(str(TEMPLATE_DIR)), TemplateManager()
    for path in TEMPLATE_DIR.glob("*.txt"):
        text = path.read_text(encoding="utf-8")
        assert ours.get_template(path.stem) == text
        assert path.stem not in theirs.templates
        assert text.isascii()
        assert max(len(line) for line in text.splitlines()) <= 140


def test_the_hash_covers_every_template() -> None:
    first = prompt_hash()
    assert re.fullmatch(r"[0-9a-f]{64}", first)
    assert prompt_hash() == first
    extra = TEMPLATE_DIR / "zz_test_only.txt"
    try:
        extra.write_text("x", encoding="utf-8")
        assert prompt_hash() != first
    finally:
        extra.unlink()
    assert prompt_hash() == first

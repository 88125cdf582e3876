"""Blocks in another style: edits fit where they can, decline where they cannot, and never raise."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from evolution.proposers.operators.block_editor import BlockEditor
from evolution.proposers.operators.catalogue import catalogue, operators_for
from evolution.proposers.operators.edit import Edit
from evolution.proposers.operators.simplification import present_operators, redraw, simplification, without_operator
from evolution.proposers.operators.slots import SLOTS
from evolution.proposers.operators.statements import ForeignBlockError
from frameworks.registry import Framework, framework

DYNAMICS = framework("coefficient_dynamics")

OTHER_STYLE = '''
def rotate_half(t):
    """A function of the block's own, beside the class."""
    one, two = t.chunk(2, dim=-1)
    return torch.cat((-two, one), dim=-1)


class Dynamics(nn.Module):
    def __init__(self, d_model, n_heads, head_dim):
        super().__init__()
        self.scale = head_dim ** -0.5   # aligned  comment
        self.gain = nn.Parameter(torch.ones(n_heads, 1, 1))

    def signals(self, x, q, k, v):
        # queries are rotated a little
        return q + 0.1 * rotate_half(q), k, v

    def readout(self, x, q, k):
        return self.gain * (q @ k.transpose(-1, -2)) * self.scale

    def phi(self, s, visible):
        s = s.masked_fill(~visible, float("-inf"))
        return torch.softmax(s, dim=-1)

    def eta(self, a):
        return a.sum(-1, keepdim=True)

    def output(self, x, v, y):
        return 1.0 * y

    def forward(self, x, q, k, v):
        queries, keys, values = self.signals(x, q, k, v)
        length = queries.shape[-2]
        visible = torch.ones(length, length, dtype=torch.bool).tril()
        a = self.phi(self.readout(x, queries, keys), visible)
        return self.output(x, values, (a / self.eta(a)) @ values)
'''

FOREIGN = {
    "empty": "",
    "prose": "I would add a convolution.",
    "syntax error": "class Dynamics(nn.Module):\n    def forward(self:\n",
    "no class": "x = 1\n",
    "other class": "class Mixer(nn.Module):\n    pass\n",
    "two classes": "class Dynamics(nn.Module):\n    pass\n\nclass Dynamics(nn.Module):\n    pass\n",
    "one-line class": "class Dynamics(nn.Module): pass\n",
    "one-line methods": "class Dynamics(nn.Module):\n    def signals(self, x, q, k, v): return q, k, v\n",
    "no methods": "class Dynamics(nn.Module):\n    limit = 3\n",
    "method twice": "class Dynamics(nn.Module):\n" + 2 * "    def signals(self, x, q, k, v):\n        return q, k, v\n",
    "early return": "class Dynamics(nn.Module):\n    def signals(self, x, q, k, v):\n        if x is None:\n"
    "            return q, k, v\n        return q, k, v\n    def forward(self, x, q, k, v):\n"
    "        return self.signals(x, q, k, v)[2]\n",
    "two values": "class Dynamics(nn.Module):\n    def signals(self, x, q, k, v):\n        return q, k\n",
    "no return": "class Dynamics(nn.Module):\n    def output(self, x, v, y):\n        y = y + v\n",
    "bare return": "class Dynamics(nn.Module):\n    def output(self, x, v, y):\n        return\n"
    "    def forward(self, x, q, k, v):\n        return self.output(x, v, v)\n",
    "other parameters": "class Dynamics(nn.Module):\n    def readout(self, hidden, a, b):\n        return s\n"
    "    def signals(self, *qkv):\n        return qkv\n",
    "never called": "class Dynamics(nn.Module):\n    def signals(self, x, q, k, v):\n        return q, k, v\n"
    "    def forward(self, x, q, k, v):\n        return v\n",
    "starred": "class Dynamics(nn.Module):\n    def signals(self, x, *qkv):\n        return (*qkv,)\n",
    "asynchronous": "class Dynamics(nn.Module):\n    async def signals(self, x, q, k, v):\n        return q, k, v\n",
    "marker": "# EVOLVE-BLOCK-START\nclass Dynamics(nn.Module):\n    pass\n",
    "null byte": "class Dynamics(nn.Module):\n    pass\n\x00",
    "surrogate": "class Dynamics(nn.Module):\n    name = '\ud800'\n",
    "deep": "class Dynamics(nn.Module):\n    x = " + "-" * 150 + "1\n",
    "deeper": "x = " + "1 + " * 4000 + "1\nclass Dynamics(nn.Module):\n    pass\n",
    "very long": "class Dynamics(nn.Module):\n    x = 1\n" + "# filler\n" * 10_000,
    "semicolons": "class Dynamics(nn.Module):\n    def output(self, x, v, y):\n        y = y + v; return y\n"
    "    def forward(self, x, q, k, v):\n        return self.output(x, v, v)\n",
    "windows line ends": "class Dynamics(nn.Module):\r\n    pass\r\n",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_block_is_declined_and_never_raises(name: str) -> None:
    for entry in [*operators_for("coefficient_dynamics"), simplification(), redraw()]:
        assert entry.apply(FOREIGN[name], "coefficient_dynamics", random.Random(0)) is None, entry.name
    assert present_operators(FOREIGN[name], "coefficient_dynamics") == []


def test_another_style_is_edited_where_it_can_be(check: Callable[..., Any]) -> None:
    check(DYNAMICS, OTHER_STYLE)
    fitting = 0
    for entry in operators_for("coefficient_dynamics"):
        block = entry.apply(OTHER_STYLE, "coefficient_dynamics", random.Random(0))
        if block is None:
            continue
        fitting += 1
        check(DYNAMICS, block)
        assert "# queries are rotated a little" in block
        assert "self.scale = head_dim ** -0.5   # aligned  comment" in block
        assert "def rotate_half(t):" in block
    assert fitting > 30


def test_returned_expressions_are_given_a_name() -> None:
    editor = BlockEditor(OTHER_STYLE, SLOTS["coefficient_dynamics"])
    editor.apply("shift", Edit(signals="q = 2.0 * q", scores="s = s + 1.0", output="y = y + v"))
    lines = [line.strip() for line in editor.code.splitlines()]
    assert lines[lines.index("q = 2.0 * q  # shift") - 1] == "q, k, v = q + 0.1 * rotate_half(q), k, v"
    assert lines[lines.index("s = s + 1.0  # shift") - 1].startswith("s = self.gain * (")
    assert lines[lines.index("y = y + v  # shift") + 1] == "return y"


def test_returned_names_are_used_as_they_are() -> None:
    block = DYNAMICS.start_block.replace("return q, k, v", "queries = q\n        return queries, k, v")
    edited = catalogue()["qk_rms_norm"].apply(block, "coefficient_dynamics", random.Random(0))
    assert edited is not None
    assert "queries = self.qk_gain[0] * queries * torch.rsqrt(queries.square()" in edited


def test_what_a_method_does_not_get_is_not_used() -> None:
    """A slot whose parameters have other names takes the edits that need none of them."""
    block = DYNAMICS.start_block.replace("def signals(self, x, q, k, v)", "def signals(self, hidden, q, k, v)")
    assert catalogue()["value_gate"].apply(block, "coefficient_dynamics", random.Random(0)) is None
    assert catalogue()["key_norm"].apply(block, "coefficient_dynamics", random.Random(0)) is not None


def test_a_taken_attribute_or_local_name_is_declined() -> None:
    start = DYNAMICS.start_block
    attribute = start.replace(
        "        self.head_dim = head_dim\n", "        self.conv_taps = 3\n        self.head_dim = 16\n"
    )
    assert catalogue()["short_convolution"].apply(attribute, "coefficient_dynamics", random.Random(0)) is None
    local = start.replace("            s = s * torch.exp", "            distance = c\n            s = s * torch.exp")
    assert catalogue()["distance_bias"].apply(local, "coefficient_dynamics", random.Random(0)) is None


def test_removal_declines_when_something_builds_on_the_addition(regression: Framework) -> None:
    block = catalogue()["value_skip"].apply(regression.start_block, regression.name, random.Random(0))
    assert block is not None
    built_on = block.replace(
        "        return q, k, v\n", "        v = v * self.skip_gate.exp()\n        return q, k, v\n"
    )
    assert built_on != block
    assert without_operator(built_on, regression.name, "value_skip") is None
    assert without_operator(block, regression.name, "no_such_operator") is None


def test_redraw_changes_the_draw_and_nothing_else(regression: Framework) -> None:
    block = catalogue()["relative_bias"].apply(regression.start_block, regression.name, random.Random(0))
    assert block is not None
    again = redraw().apply(block, regression.name, random.Random(3))
    assert again is not None
    assert again != block
    assert present_operators(again, regression.name) == ["relative_bias"]
    unchanging = catalogue()["talking_heads"].apply(regression.start_block, regression.name, random.Random(0))
    assert redraw().apply(unchanging or "", regression.name, random.Random(0)) is None


def test_the_reason_is_told() -> None:
    editor = BlockEditor(DYNAMICS.start_block, SLOTS["coefficient_dynamics"])
    with pytest.raises(ForeignBlockError, match="2 classes are called Dynamics"):
        BlockEditor(FOREIGN["two classes"], SLOTS["coefficient_dynamics"])
    with pytest.raises(ForeignBlockError, match="0 methods are called nothing"):
        editor.body("nothing")
    editor.apply("one", Edit(output="y = y + v"))
    with pytest.raises(ForeignBlockError, match="one is there already"):
        editor.apply("one", Edit(output="y = y + v"))


def test_other_indentation_is_followed() -> None:
    tabs = DYNAMICS.start_block.replace("    ", "\t")
    edited = catalogue()["value_skip"].apply(tabs, "coefficient_dynamics", random.Random(0))
    assert edited is not None
    assert "\t\ty = y + self.skip_gate * v  # value_skip\n\t\treturn y" in edited

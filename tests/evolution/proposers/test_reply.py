"""From replies to blocks: what is accepted, and the typed reason for what is not."""

from __future__ import annotations

import pytest

from evolution.proposers.reply import ReplyError, extract_block
from frameworks.registry import framework

OWNER = framework("matrix_mixer")
START = OWNER.start_block
NEW = START.replace("return y\n", "return 2.0 * y\n")
SOURCE = OWNER.program(NEW).source
NO_MARKERS = "".join(line for line in SOURCE.splitlines(keepends=True) if "EVOLVE-BLOCK" not in line)
WITH_OS = SOURCE.replace("import torch\n", "import torch\nimport os\n", 1)
WANTED = NEW.strip() + "\n"


def _fence(code: str, language: str = "python", mark: str = "```") -> str:
    return f"Because of this and that.\n\n{mark}{language}\n{code}\n{mark}\n"


def _edit(search: str, replace: str) -> str:
    return f"<<<<<<< SEARCH\n{search}\n=======\n{replace}\n>>>>>>> REPLACE\n"


DIFF = _edit("        return y", "        return 2.0 * y")
MULTILINE = _edit(
    '        """The mixed features y (B, H, T, D) as they leave the mixer."""\n        return y',
    '        """The mixed features y (B, H, T, D) as they leave the mixer."""\n        return 2.0 * y',
)

ACCEPTED = {
    "fenced block": _fence(NEW),
    "no language": _fence(NEW, ""),
    "upper case language": _fence(NEW, "Python"),
    "other language name": _fence(NEW, "text"),
    "tildes": _fence(NEW, mark="~~~"),
    "longer fence": _fence(NEW, mark="`````"),
    "windows line ends": _fence(NEW).replace("\n", "\r\n"),
    "bare code": NEW,
    "indented fence": _fence("\n".join("  " + line for line in NEW.splitlines())),
    "parent first, child last": _fence(START) + _fence(NEW),
    "usage example after it": _fence(NEW) + _fence("mixer = Mixer(32, 2, 16)"),
    "shell command before it": _fence("pip install torch", "bash") + _fence(NEW),
    "whole file": _fence(SOURCE),
    "whole file without comments": _fence(
        "\n".join(r for r in SOURCE.splitlines() if "noqa" not in r or "import" in r)
    ),
    "whole file without markers": _fence(NO_MARKERS),
    "marked block only": _fence(f"# EVOLVE-BLOCK-START\n{NEW}# EVOLVE-BLOCK-END"),
    "imports of the shell repeated": _fence(f"import math\nimport torch.nn as nn\nimport torch\n\n{NEW}"),
    "imports under other spellings": _fence(f"import torch.nn.functional as F\nfrom torch import nn, Tensor\n{NEW}"),
    "reasoning first": f"<think>\n```python\nclass Mixer: pass\n```\nhm\n</think>\n{_fence(NEW)}",
    "edit": DIFF,
    "edit of two lines": MULTILINE,
    "edit in a fence": f"Reason.\n```diff\n{DIFF}```\n",
    "edit with trailing blanks": DIFF.replace("return y", "return y  ").replace("2.0 * y  ", "2.0 * y"),
    "two edits": _edit("        right = k", "        right = 1.0 * k")
    + _edit("        right = 1.0 * k", "        right = k")
    + DIFF,
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    block = extract_block(ACCEPTED[name], OWNER, START)
    assert OWNER.program(block).identity == OWNER.program(NEW).identity
    assert block.endswith("\n")
    assert not block.endswith("\n\n")


def test_comments_and_layout_of_the_reply_are_kept() -> None:
    assert extract_block(_fence(NEW), OWNER) == WANTED
    assert extract_block(_fence(SOURCE), OWNER) == WANTED


REFUSED = {
    "null": (None, "empty", "no content"),
    "empty": ("", "empty", "is empty"),
    "blank": (" \n\t\n", "empty", "is empty"),
    "only reasoning": ("<think>so</think>\n", "empty", "is empty"),
    "endless reasoning": (f"<think>so {_fence(NEW)}", "truncated", "inside its reasoning"),
    "too long": ("x" * 400_001, "too_long", "400,001 characters"),
    "prose": ("I would add a short convolution to the keys.", "prose", "holds no code"),
    "refusal": ("I'm sorry, but I can't help with that.", "prose", "holds no code"),
    "inline code": ("Use `class` and `nn.Module`.", "prose", "holds no code"),
    "truncated fence": (_fence(NEW).rstrip().rstrip("`"), "truncated", "never closed"),
    "truncated in the middle": (_fence(NEW)[:400], "truncated", "opened on line 3"),
    "truncated second": (_fence(START) + _fence(NEW)[:400], "truncated", "never closed"),
    "one method": (_fence("def output(self, x, v, y):\n    return 2.0 * y"), "no_class", "defined: output"),
    "other class": (_fence("class Dynamics(nn.Module):\n    pass"), "no_class", "defined: Dynamics"),
    "empty fence": (_fence(""), "no_class", "defined: nothing"),
    "nested class": (_fence("class Outer:\n    class Mixer(nn.Module):\n        pass"), "no_class", "does not define"),
    "syntax error": (_fence(NEW.replace("def factors(", "def factors((")), "syntax", "does not parse"),
    "tabs and blanks": (_fence(NEW.replace("        return 2.0 * y", "\treturn 2.0 * y")), "syntax", "does not parse"),
    "null byte": (_fence(NEW + "\x00"), "syntax", "does not parse"),
    "surrogate": (_fence(NEW + "name = '\ud800'"), "syntax", "does not parse"),
    "deep nesting": (_fence(NEW + "x = " + "(" * 300 + ")" * 300), "syntax", "does not parse"),
    "rest left out": (_fence(NEW + "# ... rest of the class unchanged"), "abbreviated", "leaves something out"),
    "methods left out": (_fence(NEW + "    # (other methods remain the same as before)"), "abbreviated", "leaves"),
    "standard class edited": (
        _fence(SOURCE.replace("is_causal=True", "is_causal=False")), "outside_block", "before the block is changed",
    ),
    "shell edited": (_fence(SOURCE.replace("self.mixer(x, q, k, v)", "2 * v")), "outside_block", "after the block"),
    "code added outside": (_fence(WITH_OS), "outside_block", "`import os`"),
    "shell edited without markers": (
        _fence(NO_MARKERS.replace("self.mixer(x, q, k, v)", "2 * v")), "outside_block", "EvolvableMatrixMixer",
    ),
    "one marker only": (_fence(f"# EVOLVE-BLOCK-START\n{NEW}"), "outside_block", "markers are damaged"),
    "two blocks": (_fence(SOURCE + SOURCE), "outside_block", "markers are damaged"),
    "edit of the shell": (_edit("import torch", "import torch, os"), "outside_block", "changes code outside"),
    "edit that fits nowhere": (_edit("        return z", "        return y"), "no_match", "`return z`"),
    "edit of nothing": (_edit("   ", "        return 1"), "malformed_edit", "searches for nothing"),
    "edit of half a line": (_edit("    def __init__", "    def init"), "no_match", "not in the parent"),
    "edit without separator": ("<<<<<<< SEARCH\na\n>>>>>>> REPLACE\n", "malformed_edit", "where '=======' is due"),
    "edit with two separators": (DIFF.replace("=======", "=======\n======="), "malformed_edit", "is due"),
    "edit never ended": (DIFF.replace(">>>>>>> REPLACE", ""), "truncated", "'>>>>>>> REPLACE' is missing"),
    "edit out of order": (">>>>>>> REPLACE\n" + DIFF, "malformed_edit", "where '<<<<<<< SEARCH' is due"),
    "edit of a comment": (
        _edit("        right = k", "        right = k  # the keys"), "no_change", "nothing but comments",
    ),
    "edit that breaks the syntax": (_edit("        right = k", "        right = ("), "syntax", "does not parse"),
    "unified diff": ("--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-return y\n+return v\n", "malformed_edit", "unified diff"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    reply, kind, words = REFUSED[name]
    with pytest.raises(ReplyError) as caught:
        extract_block(reply, OWNER, START)
    assert caught.value.kind == kind
    assert words in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_an_ambiguous_edit_is_refused() -> None:
    parent = START.replace("        right = k\n", "        right = k\n        right = k\n")
    with pytest.raises(ReplyError, match="fits 2 places"):
        extract_block(_edit("        right = k", "        right = 2.0 * k"), OWNER, parent)


def test_edits_need_a_parent() -> None:
    with pytest.raises(ReplyError, match="no parent") as caught:
        extract_block(DIFF, OWNER)
    assert caught.value.kind == "malformed_edit"


def test_edits_may_grow_and_shrink_the_block() -> None:
    grown = extract_block(_edit("        right = k", "        right = k\n        right = right * 2.0"), OWNER, START)
    assert len(grown.splitlines()) == len(START.strip().splitlines()) + 1
    shrunk = extract_block(
        _edit("        right = k\n        return left, right", "        return left, k"), OWNER, START
    )
    assert len(shrunk.splitlines()) == len(START.strip().splitlines()) - 1

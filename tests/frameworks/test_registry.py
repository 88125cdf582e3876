"""Frameworks by name: complete entries, helpful errors, and no heavy import to look one up."""

from __future__ import annotations

import subprocess
import sys

import pytest

from frameworks.attention.shell import AttentionShell
from frameworks.program import END_MARKER, START_MARKER, ProgramError, split_source
from frameworks.registry import UnknownFrameworkError, framework, frameworks

ALL = pytest.mark.parametrize("found", frameworks().values(), ids=lambda found: found.name)


def test_the_three_attention_frameworks_are_there():
    assert list(frameworks()) == ["coefficient_dynamics", "test_time_regression", "matrix_mixer"]
    assert all(found.kind == "attention" for found in frameworks().values())


@ALL
def test_an_entry_names_what_its_file_defines(found):
    assert framework(found.name) is found
    module = found.program().load()
    for name in (found.standard_class, found.evolvable_class):
        assert issubclass(getattr(module, name), AttentionShell)
    block = getattr(module, found.block_class)(d_model=30, n_heads=2, head_dim=15)
    assert type(getattr(module, found.evolvable_class)(30, 2).mixer) is type(block)
    assert found.summary
    assert not found.summary.endswith(".")


@ALL
def test_the_start_block_is_between_the_markers(found):
    head, block, tail = split_source(found.pristine)
    assert found.start_block == block
    assert head.endswith(START_MARKER + "\n")
    assert tail.startswith(END_MARKER)
    assert f"class {found.block_class}(nn.Module):" in block
    assert found.program() == found.program(block)
    assert found.program().source == found.pristine


@ALL
def test_only_the_block_of_a_whole_file_is_taken(found):
    foreign = found.pristine.replace("AttentionShell", "Stolen").replace("class Standard", "class Hacked")
    edited = foreign.replace(
        "    def forward(self, x, q, k, v):", "    def forward(self, x, q, k, v):\n        x = x * 1"
    )
    program = found.program_from_source(edited)
    assert "Stolen" not in program.source
    assert "Hacked" not in program.source
    assert "x = x * 1" in program.block
    assert program.identity != found.program().identity


@ALL
def test_a_file_without_a_block_is_an_error(found):
    with pytest.raises(ProgramError, match="0 lines read '# EVOLVE-BLOCK-START'"):
        found.program_from_source("x = 1\n")
    with pytest.raises(ProgramError, match="does not parse"):
        found.program("class (\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("matrix_mixr", "unknown framework 'matrix_mixr'; did you mean 'matrix_mixer'"),
        ("coefficient-dynamics", "did you mean 'coefficient_dynamics'"),
        ("zzz", "unknown framework 'zzz'"),
    ],
)
def test_unknown_names_get_the_near_matches_and_the_list(name, message):
    with pytest.raises(UnknownFrameworkError, match=message) as caught:
        framework(name)
    assert all(known in str(caught.value) for known in frameworks())
    assert isinstance(caught.value, ValueError)


def test_looking_up_imports_no_torch():
    code = (
        "import sys; from frameworks.registry import frameworks; "
        "from frameworks.attention.controls.registry import controls; "
        "assert len(frameworks()) == 3 and len(controls()) > 50; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

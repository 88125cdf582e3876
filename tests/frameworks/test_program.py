"""A program is one file with one block: splitting, splicing, identity, diff and loading."""

from __future__ import annotations

import sys
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frameworks.program import (
    END_MARKER,
    START_MARKER,
    Program,
    ProgramError,
    block_diff,
    block_identity,
    load_module,
    make_program,
    normalise_block,
    parse_block,
    splice_block,
    split_source,
)

HEAD = f'"""A shell."""\n\nx = 1\n\n\n{START_MARKER}\n'
TAIL = f"{END_MARKER}\n\n\ndef read():\n    return value\n"
PRISTINE = f"{HEAD}value = 1\n{TAIL}"
# What str.splitlines breaks at and Python does not.
SEPARATORS = ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


def same(first: str, second: str) -> bool:
    return block_identity("f", "1", first) == block_identity("f", "1", second)


def test_split_gives_every_byte_back():
    head, block, tail = split_source(PRISTINE)
    assert (head, block, tail) == (HEAD, "value = 1\n", TAIL)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n", "0 lines read '# EVOLVE-BLOCK-START'"),
        ("", "0 lines read '# EVOLVE-BLOCK-START'"),
        (f"{START_MARKER}\nx = 1\n", "0 lines read '# EVOLVE-BLOCK-END'"),
        (f"x = 1\n{END_MARKER}\n", "0 lines read '# EVOLVE-BLOCK-START'"),
        (f"{START_MARKER}\n{START_MARKER}\n{END_MARKER}\n", r"2 lines read '# EVOLVE-BLOCK-START' \(lines 1, 2\)"),
        (PRISTINE + PRISTINE, "2 lines read '# EVOLVE-BLOCK-START'"),
        (f"{START_MARKER}\nx = 1\n{END_MARKER}\n{END_MARKER}\n", r"2 lines read '# EVOLVE-BLOCK-END' \(lines 3, 4\)"),
        (f"{END_MARKER}\nx = 1\n{START_MARKER}\n", r"END' \(line 1\) stands before .*START' \(line 3\)"),
        (f"x = 1  {START_MARKER}\n{END_MARKER}\n", "0 lines read '# EVOLVE-BLOCK-START'"),
        ("#EVOLVE-BLOCK-START\n" + END_MARKER, "0 lines read '# EVOLVE-BLOCK-START'"),
    ],
)
def test_wrong_markers_are_named(source, message):
    with pytest.raises(ProgramError, match=message):
        split_source(source)


def test_markers_inside_strings_are_text():
    source = f"text = '''\n{START_MARKER}\n{END_MARKER}\n'''\n{PRISTINE}"
    head, block, tail = split_source(source)
    assert block == "value = 1\n"
    assert head + block + tail == source
    assert load_module(splice_block(source, "value = 7\n"), "markers_in_text").read() == 7


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("place", ["comment in head", "string in head", "string in block", "comment in tail"])
def test_unicode_separators_do_not_move_the_markers(separator, place):
    text = f"a{separator}b"
    head = {"comment in head": f"# {text}\n", "string in head": f"s = '{text}'\n"}.get(place, "") + HEAD
    block = f"value = '{text}'\n" if place == "string in block" else "value = 1\n"
    tail = TAIL + (f"# {text}\n" if place == "comment in tail" else "")
    source = head + block + tail
    assert split_source(source) == (head, block, tail)
    assert splice_block(source, "value = 3\n") == head + "value = 3\n" + tail
    assert splice_block(PRISTINE, block) == HEAD + block + TAIL


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_other_line_ends_are_kept(end):
    source = PRISTINE.replace("\n", end)
    head, block, tail = split_source(source)
    assert head == HEAD.replace("\n", end)
    assert block == f"value = 1{end}"
    assert tail == TAIL.replace("\n", end)
    assert splice_block(source, "value = 2\n") == head + "value = 2\n" + tail


def test_mixed_line_ends_are_kept():
    source = f"# one\r# two\n{START_MARKER}\r\nvalue = 1\r{END_MARKER}\n"
    assert split_source(source) == (f"# one\r# two\n{START_MARKER}\r\n", "value = 1\r", f"{END_MARKER}\n")


def test_a_source_that_does_not_parse_still_splits():
    assert split_source(f"{START_MARKER}\nx = (1\n{END_MARKER}\n")[1] == "x = (1\n"


@pytest.mark.parametrize("marker", [START_MARKER, END_MARKER])
@pytest.mark.parametrize("before", ["value = 1\n", "value = 1\r", "value = 1\n   ", "value = 1\n\x0c", "value = '''\n"])
def test_a_block_may_not_hold_a_marker(marker, before):
    closing = "\n'''\n" if before.endswith("'''\n") else "\n"
    with pytest.raises(ProgramError, match="the markers belong to the shell"):
        splice_block(PRISTINE, before + marker + closing)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("", "the block is empty"),
        ("\n\n# nothing\n", "the block is empty"),
        ('"""only a docstring"""\n', "the block is empty"),
        ("value = (1\n", r"does not parse: '\(' was never closed \(line 1 of the block\)"),
        ("value = 1\n  x = 2\n", r"unexpected indent \(line 2 of the block\)"),
        ("value = '''\n", "unterminated triple-quoted string"),
        ("if value:\n", "expected an indented block"),
        ("value = 1 \\\n", "does not parse"),
        ("value = 1\n\\\n", "does not parse"),
        ("value = \x00 1\n", "NUL byte"),
        ("value = '\ud800'\n", "surrogates not allowed"),
        ("value = " + "(" * 500 + "1" + ")" * 500 + "\n", "does not parse"),
        ("value = " + "-" * 20_000 + "1\n", "does not parse"),
        ("value = a" + ".b" * 20_000 + "\n", "does not parse"),
        ("value = " + "1" * 5_000 + "\n", "does not parse"),
        ("return 1\n", "does not fit into its file: SyntaxError: 'return' outside function"),
        ("def f():\n    break\n", "does not fit into its file: SyntaxError: 'break' outside loop"),
        ("from __future__ import annotations\nvalue = 1\n", "does not fit into its file: SyntaxError: from __future__"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_illegal_blocks_are_refused(block, message):
    with pytest.raises(ProgramError, match=message):
        splice_block(PRISTINE, block)


def test_splicing_keeps_every_byte_outside_the_block():
    assert splice_block(PRISTINE, "value = 5") == HEAD + "value = 5\n" + TAIL
    assert splice_block(PRISTINE, "\n\nvalue = 5\n\n\n") == HEAD + "\n\nvalue = 5\n\n\n" + TAIL
    assert splice_block(PRISTINE, f"value = 5  {END_MARKER}\n") == f"{HEAD}value = 5  {END_MARKER}\n{TAIL}"
    assert splice_block(PRISTINE, "value = 1\r\n") == HEAD + "value = 1\r\n" + TAIL
    assert splice_block(PRISTINE, "# -*- coding: latin-1 -*-\nvalue = 'é'\n").startswith(HEAD)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@given(st.text(max_size=60))
def test_any_text_is_spliced_or_refused(text):
    for block in (text, f"value = 1  # {text}", f"value = {text!r}\n", f'"""{text}"""\nvalue = 1'):
        try:
            source = splice_block(PRISTINE, block)
        except ProgramError:
            continue
        head, found, tail = split_source(source)
        assert (head, tail) == (HEAD, TAIL)
        assert found.removesuffix("\n") == block.removesuffix("\n")
        compile(source, "spliced", "exec")


@given(st.text(alphabet=st.sampled_from(["a", "\n", "\r", "\t", " ", "#", "'", "\\", *SEPARATORS]), max_size=30))
def test_a_head_of_any_text_keeps_its_bytes(text):
    source = f"# {text}\n{PRISTINE}"
    try:
        head, block, tail = split_source(source)
    except ProgramError:
        return
    assert head + block + tail == source
    assert block.strip() == "value = 1"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("value = 1\n", "value = 1  # a comment\n"),
        ("value = 1\n", "\n\n# a comment\nvalue = 1\n\n"),
        ("value = 1\n", "value   =   (1)\n"),
        ("value = 1\n", "value = \\\n    1\n"),
        ("value = 1\n", "value = 1\r\n"),
        ("value = [1, 2]\n", "value = [\n    1,\n    2,\n]\n"),
        ("value = 'a'\n", 'value = "a"\n'),
        ("value = 'a'\n", "value = u'a'\n"),
        ("value = 'ab'\n", "value = 'a' 'b'\n"),
        ("value = 16\n", "value = 0x10\n"),
        ("value = 1\n", '"""Docstring of the block."""\nvalue = 1\n'),
        ("class A:\n    x = 1\n", 'class A:\n    """Doc."""\n\n    x = 1\n'),
        ("def f():\n    return 1\n", 'def f():\n    """Doc."""\n    return 1\n'),
        ("def f():\n    pass\n", 'def f():\n    """Doc."""\n'),
        (
            "def f():\n    x = 1\n    return x\n",
            'def f():\n    x = 1\n    """A comment."""\n    return x\n',
        ),
        ("def f():\n    if x:\n        return 1\n", "def f():\n  if x:\n    'why'\n    return 1\n"),
        ("async def f():\n    pass\n", 'async def f():\n    """Doc."""\n'),
    ],
)
def test_identity_ignores_comments_docstrings_and_layout(first, second):
    assert same(first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("value = 1\n", "value = 2\n"),
        ("value = 1\n", "value = 1.0\n"),
        ("value = 1\n", "value = True\n"),
        ("value = 0.0\n", "value = -0.0\n"),
        ("value = 'a'\n", "value = b'a'\n"),
        ("value = 'a'\n", "value = 'a '\n"),
        ("value = None\n", "value = ...\n"),
        ("value = 1\n", "values = 1\n"),
        ("x = 1\ny = 2\n", "y = 2\nx = 1\n"),
        ("value = a + b\n", "value = b + a\n"),
        ("value = a - b - c\n", "value = a - (b - c)\n"),
        ("value = f(a, b=1)\n", "value = f(a, 1)\n"),
        ("value = f(*a)\n", "value = f(a)\n"),
        ("value = [f'{a}']\n", "value = ['{a}']\n"),
        ("def f(a, b=1): return a\n", "def f(a, *, b=1): return a\n"),
        ("def f(a): return a\n", "def f(a): a\n"),
        ("if a:\n    x = 1\nelse:\n    x = 2\n", "if a:\n    x = 1\nx = 2\n"),
        ("value = [x for x in y]\n", "value = (x for x in y)\n"),
        ("value = {1: 2}\n", "value = {1, 2}\n"),
        ("value = x[1:2]\n", "value = x[1:]\n"),
        ("value = x[1:]\n", "value = x[:1]\n"),
        ("def f():\n    return 'doc'\n", "def f():\n    return\n"),
    ],
)
def test_identity_follows_meaning(first, second):
    assert not same(first, second)


def test_identity_depends_on_framework_and_contract():
    assert block_identity("f", "1", "x = 1\n") != block_identity("g", "1", "x = 1\n")
    assert block_identity("f", "1", "x = 1\n") != block_identity("f", "2", "x = 1\n")
    assert block_identity("f1", "1", "x = 1\n") != block_identity("f", "11", "x = 1\n")


def test_identity_does_not_change_between_versions_of_python():
    # A stored ledger is read by later interpreters; ast.dump would break this.
    assert normalise_block('class A(B):\n    """Doc."""\n\n    def f(self, x=None):\n        return x[..., 1:]\n') == (
        "Module(body=[ClassDef(name='A', bases=[Name(id='B', ctx=Load())], body=[FunctionDef(name='f', "
        "args=arguments(args=[arg(arg='self'), arg(arg='x')], defaults=[Constant()]), body=[Return("
        "value=Subscript(value=Name(id='x', ctx=Load()), slice=Tuple(elts=[Constant(value=Ellipsis), "
        "Slice(lower=Constant(value=1))], ctx=Load()), ctx=Load()))])])])"
    )


def test_parse_block_returns_the_tree():
    assert [type(node).__name__ for node in parse_block("import math\nx = 1\n").body] == ["Import", "Assign"]


def test_make_program():
    program = make_program("f", "1", PRISTINE, "value = 5")
    assert isinstance(program, Program)
    assert program.block == "value = 5\n"
    assert program.source == HEAD + "value = 5\n" + TAIL
    assert program.identity == block_identity("f", "1", "value = 5  # same\n")
    assert program.load().read() == 5
    assert make_program("f", "1", program.source, program.block) == program


def test_diff():
    assert block_diff("a = 1\n", "a = 1\n") == ""
    diff = block_diff("a = 1\nb = 2\n", "a = 1\nb = 3\nc = 4", "old", "new")
    assert diff.splitlines() == ["--- old", "+++ new", "@@ -1,2 +1,3 @@", " a = 1", "-b = 2", "+b = 3", "+c = 4"]
    assert diff.endswith("\n")
    rows = block_diff("a = 'x\u2028y'\n", "a = 'x\u2028z'\n").split("\n")
    assert rows[3:5] == ["-a = 'x\u2028y'", "+a = 'x\u2028z'"]


def test_loaded_modules_are_fresh_and_show_their_lines():
    source = "# a\u2028b\ncount = []\n\n\ndef fail():\n    raise KeyError('here')  # this line\n"
    first, second = load_module(source, "fresh_one"), load_module(source, "fresh_two")
    assert first.count is not second.count
    assert sys.modules["fresh_one"] is first
    with pytest.raises(KeyError) as caught:
        first.fail()
    assert "raise KeyError('here')  # this line" in "".join(traceback.format_exception(caught.value))


def test_a_module_that_fails_to_load_is_not_left_behind():
    with pytest.raises(ZeroDivisionError):
        load_module("x = 1 / 0\n", "broken_module")
    assert "broken_module" not in sys.modules


def test_modules_do_not_inherit_our_own_compiler_flags():
    assert load_module("def f(x: int): ...\n", "flags").f.__annotations__ == {"x": int}

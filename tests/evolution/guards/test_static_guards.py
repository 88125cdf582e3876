"""The static guards: what a block may say."""

from __future__ import annotations

import string
import textwrap
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from evolution.guards.registry import GUARDS, guards, static_guards
from evolution.guards.report import GuardReport
from frameworks.registry import framework, frameworks
from tests.evolution.guards.block_template import mixer_block
from tests.evolution.guards.cheat_blocks import CHEATS
from tests.evolution.guards.honest_blocks import HONEST

MIXER = framework("matrix_mixer")


def verdict(block: str) -> GuardReport:
    return static_guards(MIXER, block)[-1]


@pytest.mark.parametrize("name", list(frameworks()))
def test_shipped_blocks_pass_every_static_guard(name: str) -> None:
    reports = static_guards(framework(name), framework(name).start_block)
    assert [report.guard for report in reports] == [guard.name for guard in guards("static")]
    assert all(report.passed for report in reports)


@pytest.mark.parametrize("name", list(HONEST))
def test_honest_blocks_pass(name: str) -> None:
    report = verdict(HONEST[name])
    assert report.passed, report.reason


@pytest.mark.parametrize("name", list(CHEATS))
def test_cheats_are_well_formed_so_that_the_dynamic_guards_meet_them(name: str) -> None:
    report = verdict(CHEATS[name][0])
    assert report.passed, report.reason


# Statements for the forward body, each with the guard that must refuse it and a word of the reason.
REFUSED_IN_FORWARD = [
    ("return torch.load('x')", "attributes", "files"),
    ("torch.save(v, 'x')\nreturn v", "attributes", "files"),
    ("torch.manual_seed(0)\nreturn v", "attributes", "random state"),
    ("torch.set_num_threads(4)\nreturn v", "attributes", "not on the list"),
    ("torch.set_default_dtype(torch.float64)\nreturn v", "attributes", "not on the list"),
    ("torch.use_deterministic_algorithms(False)\nreturn v", "attributes", "not on the list"),
    ("torch.os.system('ls')\nreturn v", "attributes", "not on the list"),
    ("torch.nn.functional.torch.load('x')\nreturn v", "attributes", "torch.nn.functional.torch"),
    ("F.math.os\nreturn v", "attributes", "not on the list"),
    ("return torch.ops.aten.roll(v, 1, 2)", "attributes", "raw operators"),
    ("return torch.jit.script(v)", "attributes", "compiled"),
    ("return torch.compile(self.attend)(q, k, v)", "attributes", "compiled"),
    ("return torch.hub.load('a', 'b')", "attributes", "network"),
    ("return torch._C._nn.gelu(v)", "attributes", "not on the list"),
    ("return torch.from_file('x')", "attributes", "not on the list"),
    ("return torch.cuda.synchronize()", "attributes", "runs where its input is"),
    ("return torch.random.fork_rng()", "attributes", "__init__"),
    ("return torch.distributed.get_rank()", "attributes", "not on the list"),
    ("return torch.multiprocessing.Process()", "attributes", "not on the list"),
    ("return torch.utils.cpp_extension.load_inline('a')", "attributes", "not on the list"),
    ("return torch.library.Library('a', 'b')", "attributes", "not on the list"),
    ("return torch.autograd.grad(v.sum(), q)", "attributes", "closed form"),
    ("t = torch\nreturn t.load('x')", "names", "used as a value"),
    ("return (lambda m: m)(nn).Linear(3, 3)(v)", "names", "used as a value"),
    ("return self.__dict__", "attributes", "super().__init__()"),
    ("return v.__class__", "attributes", "super().__init__()"),
    ("return self.attend.__globals__", "attributes", "super().__init__()"),
    ("return self._parameters", "attributes", "underscore"),
    ("return v._base", "attributes", "underscore"),
    ("return v.data", "attributes", "autograd"),
    ("return v.storage()", "attributes", "memory"),
    ("return torch.tensor(v.numpy())", "attributes", "leaves torch"),
    ("return torch.tensor(v.tolist())", "attributes", "leaves torch"),
    ("return v.as_strided((1,), (1,))", "attributes", "memory"),
    ("v.register_hook(lambda g: g * 0)\nreturn v", "attributes", "hooks"),
    ("return v.grad_fn", "attributes", "trainer"),
    ("v.sum().backward()\nreturn v", "attributes", "closed form"),
    ("return v.apply_(abs)", "attributes", "element"),
    ("return v if v.requires_grad else v.roll(-1, 2)", "attributes", "gradient is wanted"),
    ("return v if torch.is_grad_enabled() else v.roll(-1, 2)", "attributes", "gradient is wanted"),
    ("return v if v.is_cuda else v.roll(-1, 2)", "attributes", "every device"),
    ("return v if v.device == q.device else v.roll(-1, 2)", "statements", "device"),
    ("return v if f'{v.device}' > 'cpu' else v", "statements", "device"),
    ("return v if x.dtype == torch.float32 else v.roll(-1, 2)", "statements", "precision"),
    ("kind = x.dtype\nreturn v if kind == torch.float32 else v.roll(-1, 2)", "statements", "precision"),
    ("return v if torch.finfo(v.dtype).bits == 64 else v.roll(-1, 2)", "attributes", "not on the list"),
    ("for s in {'a', 'b'}:\n    return v", "statements", "order differs"),
    ("return torch.Tensor(3)", "statements", "torch.tensor"),
    ("return Tensor(3)", "statements", "torch.tensor"),
    ("return '{0.__class__}'.format(v)", "attributes", "f-string"),
    ("return f'{v.__class__}'", "attributes", "super().__init__()"),
    ("return eval('v')", "names", "builtin"),
    ("return exec('v')", "names", "builtin"),
    ("return open('x')", "names", "builtin"),
    ("return __import__('os')", "names", "builtin"),
    ("return globals()", "names", "builtin"),
    ("return locals()['v']", "names", "builtin"),
    ("return vars(self)", "names", "builtin"),
    ("return getattr(v, 'data')", "names", "builtin"),
    ("setattr(self, 'a', v)\nreturn v", "names", "builtin"),
    ("return type('A', (), {})", "names", "builtin"),
    ("return help()", "names", "builtin"),
    ("return dir(v)", "names", "builtin"),
    ("breakpoint()\nreturn v", "names", "builtin"),
    ("return memoryview(b'')", "names", "builtin"),
    ("print(v)\nreturn v", "names", "builtin"),
    ("raise SystemExit", "names", "builtin"),
    ("return __builtins__", "names", "not defined"),
    ("return __class__", "names", "not defined"),
    ("return AttentionShell(4, 2)", "names", "not defined"),
    ("return StandardMatrixMixer", "names", "not defined"),
    ("return undefined_name", "names", "not defined"),
    ("eval = abs\nreturn eval(v)", "names", "builtin"),
    ("torch = v\nreturn torch", "names", "module torch"),
    ("F = 3\nreturn v", "names", "torch.nn.functional"),
    ("self = v\nreturn self", "names", "self"),
    ("global a\na = 1\nreturn v", "statements", "global"),
    ("def f():\n    nonlocal v\nreturn v", "statements", "nonlocal"),
    ("try:\n    return v\nexcept ValueError:\n    return q", "statements", "try"),
    ("match x:\n    case float(__class__=c):\n        return v\nreturn v", "statements", "match"),
    ("self.cache = v\nreturn v", "statements", "__init__"),
    ("self.head_dim += 1\nreturn v", "statements", "__init__"),
    ("[0 for self.n_heads in (1, 2)]\nreturn v", "statements", "__init__"),
    ("v.grad = q\nreturn v", "attributes", "trainer"),
    ("nn.Linear.forward = abs\nreturn v", "statements", "attribute"),
    ("F.softmax = abs\nreturn v", "statements", "attribute"),
    ("Mixer.count = 1\nreturn v", "statements", "attribute"),
    ("self.seen[0] = v\nreturn v", "attributes", "not on the list"),
    ("del self.head_dim\nreturn v", "statements", "__init__"),
    ("self.head_dim.mul_(2)\nreturn v", "statements", "in-place"),
    ("return torch.add(v, 1, out=v)", "statements", "out="),
    ("with torch.autocast('cpu'):\n    return v", "attributes", "not on the list"),
    ("with open('x') as f:\n    return v", "names", "builtin"),
    ("yield v", "statements", "yield"),
    ("return torch.empty(3)", "attributes", "outside __init__"),
    ("self.register_buffer('a', v)\nreturn v", "attributes", "__init__"),
    ("return super().__init__()", "attributes", "super().__init__()"),
    ("s = super\nreturn s", "names", "as a value"),
    ("class A:\n    pass\nreturn v", "statements", "another scope"),
    ("import os\nreturn v", "imports", "top of the block"),
    ("def f(a, seen=[]):\n    return seen\nreturn v", "statements", "shared between calls"),
    ("return v * 10**10**10", "size", "power"),
    ("return v * (1 << 10**6)", "size", "shift"),
    ("return 'a' * 10**9", "size", "repeated"),
    ("return v * 99999999999999999999999", "size", "bits"),
    ("return nn.Dropout(0.1)(v)", "attributes", "dropout"),
    ("return F.dropout(v)", "attributes", "dropout"),
    ("return F.batch_norm(v, None, None)", "attributes", "batch"),
    ("return self.train(False)", "attributes", "mode"),
    ("return self.apply(abs)", "attributes", "submodule"),
    ("return v.cummmax(2)", "attributes", "near: cummax"),
]


@pytest.mark.parametrize(
    ("forward", "guard", "word"), REFUSED_IN_FORWARD, ids=[row[0][:40] for row in REFUSED_IN_FORWARD]
)
def test_refusals_name_the_guard_the_line_and_the_reason(forward: str, guard: str, word: str) -> None:
    report = verdict(mixer_block(forward))
    assert not report.passed
    assert (report.guard, word in report.reason) == (guard, True), report
    assert report.reason.startswith("line ")
    assert len(report.reason) < 600


def with_top(text: str) -> str:
    return textwrap.dedent(text) + "\n" + mixer_block("return v")


REFUSED_AT_TOP = [
    ("import os", "imports", "allowed modules"),
    ("import os as torch", "imports", "allowed modules"),
    ("import torch.hub", "imports", "allowed modules"),
    ("import torch.utils.cpp_extension", "imports", "allowed modules"),
    ("import torch._C", "imports", "allowed modules"),
    ("from torch import load", "imports", "not on the list"),
    ("from torch import os", "imports", "not on the list"),
    ("from torch import *", "imports", "not on the list"),
    ("from torch.nn.functional import torch", "imports", "not on the list"),
    ("from . import shell", "imports", "relative"),
    ("import math as torch", "imports", "torch is torch"),
    ("from torch import einsum as F", "imports", "F is torch.nn.functional"),
    ("import importlib", "imports", "allowed modules"),
    ("CACHE = []", "statements", "constant"),
    ("CACHE = {}", "statements", "constant"),
    ("TABLE = torch.zeros(3)", "statements", "constant"),
    ("if True:\n    A = 1", "statements", "If"),
    ("for i in range(3):\n    pass", "statements", "For"),
    ("torch.zeros(3)", "statements", "Expr"),
    ("nn.Module.forward = 3", "statements", "constant"),
    ("class AttentionShell(nn.Module):\n    pass", "names", "shell"),
    ("class EvolvableMatrixMixer(nn.Module):\n    pass", "names", "shell"),
    ("def EvolvableMatrixMixer():\n    pass", "names", "shell"),
    ("async def f():\n    pass", "statements", "async"),
    ("class A(nn.Module, metaclass=B):\n    pass", "names", "not defined"),
    ("class A(nn.Module, metaclass=torch.Tensor):\n    pass", "statements", "keywords"),
    ("class A(torch.Tensor):\n    pass", "statements", "base"),
    ("class A(torch.autograd.Function):\n    pass", "attributes", "closed form"),
    ("class A(nn.Module):\n    def __getattr__(self, name):\n        return 1", "names", "two underscores"),
    ("class A(nn.Module):\n    def __call__(self, x):\n        return x", "names", "two underscores"),
    ("class A(nn.Module):\n    def parameters(self):\n        return ()", "statements", "nn.Module"),
    ("class A(nn.Module):\n    seen = []", "statements", "constant"),
    ("class A(nn.Module):\n    __slots__ = ()", "names", "two underscores"),
    ("class A(nn.Module):\n    def __init__(self):\n        self.parameters = 3", "attributes", "nn.Module"),
    ("class A(nn.Module):\n    def __init__(self):\n        self._modules = 3", "attributes", "underscore"),
    (
        "class A(nn.Module):\n    def __init__(self):\n        self.a = nn.Identity()\n        self.a.b = 3",
        "statements",
        "self.<name>",
    ),
    ("class A(nn.Module):\n    def __init__(self):\n        self.forward.x = 3", "statements", "self.<name>"),
    ("@torch.jit.script\ndef f(x):\n    return x", "attributes", "compiled"),
    ("@abs\ndef f(x):\n    return x", "statements", "decorator"),
    ("def super():\n    return 1", "names", "super"),
    ("def f(self):\n    return self", "names", "self"),
    ("class A(nn.Module):\n    def _call_impl(self, x):\n        return x", "statements", "nn.Module"),
    ("class A(nn.Module):\n    _version = 3", "statements", "nn.Module"),
    ("class A(nn.Module):\n    train = 3", "statements", "nn.Module"),
    ("class A(nn.Module):\n    def __init__(self):\n        self.make = torch.empty", "attributes", "__init__"),
    (
        "class A(nn.Module):\n    def __init__(self):\n        self.make = lambda: torch.empty(3)",
        "attributes",
        "__init__",
    ),
    ("from torch import empty", "imports", "torch.empty"),
    ("_ = (" * 50 + ")" * 50, "size", "parse"),
]


@pytest.mark.parametrize(("top", "guard", "word"), REFUSED_AT_TOP, ids=[row[0][:40] for row in REFUSED_AT_TOP])
def test_refusals_outside_forward(top: str, guard: str, word: str) -> None:
    report = verdict(with_top(top))
    assert not report.passed
    assert (report.guard, word in report.reason) == (guard, True), report


ALLOWED_TOP = [
    "import torch\nimport torch.nn as nn\nimport torch.nn.functional as F\nimport math",
    "from torch import nn, Tensor, einsum\nfrom torch.nn import functional as F\nfrom typing import Optional",
    "from einops import rearrange",
    "CHUNK = 16\nSCALE = -math.log(2.0) / 2**3\nSIZES = (1, 2, 4)",
    "def shifted(x):\n    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]",
    "def like(x):\n    low = torch.finfo(x.dtype).min\n    if torch.zeros(2, device=x.device).sum() < low:\n"
    "        return x\n    return (x.to(x.dtype) > 0).to(x.dtype)",
    "class Gate(nn.Module):\n    width = 3\n\n    def __init__(self, d):\n        super().__init__()\n"
    "        self.a = nn.Parameter(torch.empty(d))\n        nn.init.normal_(self.a)\n        with torch.no_grad():\n"
    "            self.a.mul_(0.1)\n            self.a[0] = 1\n\n    @property\n    def _size(self):\n"
    "        return self.a.numel()\n\n    @staticmethod\n    def f(x):\n        return x\n\n"
    "    def forward(self, x):\n        assert x.ndim > 1, f'{x.shape}'\n        return x * self.a * self._size",
]


@pytest.mark.parametrize("top", ALLOWED_TOP, ids=[row[:40] for row in ALLOWED_TOP])
def test_ordinary_code_is_allowed(top: str) -> None:
    report = verdict(with_top(top))
    assert report.passed, report.reason


@pytest.mark.parametrize(
    ("block", "word"),
    [
        ("x = 1", "0 times"),
        ("class Mixer(nn.Module):\n    pass", "no __init__"),
        ("class Mixer(nn.Module):\n    def __init__(self, d_model, n_heads):\n        super().__init__()", "takes"),
        (mixer_block("return v").replace("self, x, q, k, v", "self, q, k, v"), "takes (self, q, k, v)"),
        (mixer_block("return v") + mixer_block("return v"), "2 times"),
        (mixer_block("return v").replace("head_dim):", "head_dim, depth):"), "takes"),
    ],
)
def test_the_interface_is_required(block: str, word: str) -> None:
    report = verdict(block)
    assert (report.guard, report.passed, word in report.reason) == ("interface", False, True), report


def test_a_further_constructor_parameter_with_a_default_is_allowed() -> None:
    assert verdict(mixer_block("return v").replace("head_dim):", "head_dim, depth=2):")).passed


def test_an_inherited_forward_counts() -> None:
    base = mixer_block("return v").replace("class Mixer", "class Base")
    assert verdict(base + "\nclass Mixer(Base):\n    pass\n").passed


HOSTILE = {
    "nul": "x = 1\x00",
    "surrogate": "x = '\ud800'",
    "empty": "",
    "only a comment": "# nothing",
    "a million characters in a line": "x" * 1_000_000,
    "a million lines": "\n" * 1_000_000,
    "five megabytes of brackets": "(" * 5_000_000,
    "nested brackets": "x = " + "(" * 190 + "1" + ")" * 190,
    "nested minus": "x = " + "-" * 900 + "1",
    "nested minus on many lines": "x = (\n" + "-\n" * 500 + "1)",
    "nested not": "x = " + "not " * 240 + "1",
    "nested lambda": "x = " + "lambda: " * 120 + "1",
    "nested subscripts": "x = a" + "[0]" * 300,
    "nested calls": "x = a" + "()" * 450,
    "attribute chain": "x = a" + ".b" * 450,
    "nested ifs": "".join(" " * i + "if 1:\n" for i in range(95)) + " " * 95 + "pass",
    "nested functions": "".join(" " * i + "def f():\n" for i in range(90)) + " " * 90 + "pass",
    "power tower": "x = " + "9**" * 300 + "9",
    "long sum": "x = " + "1+" * 480 + "1",
    "huge integer": "x = " + "9" * 900,
    "huge integer past the limit of int": "x = (" + "\n".join("9" * 990 for _ in range(8)) + ")",
    "hexadecimal": "x = 0x" + "f" * 900,
    "float overflow": "x = 1e400 * 1e308 ** 2",
    "f-string in f-string": "x = f'{f\"{1}\"}'",
    "end marker": "x = 1\n# EVOLVE-BLOCK-END\ny = 2\n# EVOLVE-BLOCK-START\n",
    "end marker in a string": "x = '''\n# EVOLVE-BLOCK-END\n'''",
    "line separators": "x = 1\u2028# EVOLVE-BLOCK-END\u2029\x0c\x1c\x85",
    "carriage returns": "x = 1\r# EVOLVE-BLOCK-END\ry = 2",
    "continued line": "x = 1\\",
    "open string": "x = '''",
    "future import": "from __future__ import annotations",
    "byte order mark": "\ufeffx = 1",
    "encoding comment": "# -*- coding: utf-7 -*-\nx = 1",
    "bidirectional": "x = 1 # \u202e\u2066",
    "many names": "\n".join(f"a{i} = {i}" for i in range(590)),
    "unknown names near many": "def f():\n" + "\n".join(f"    a{i} = {i}" for i in range(500)) + "\n    return a50x",
    "long unknown name": "def f():\n    return " + "a" * 900,
    "long unknown attribute": "def f(x):\n    return x." + "a" * 900,
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_text_is_refused_quickly_and_never_raises(name: str) -> None:
    started = time.process_time()
    report = verdict(HOSTILE[name])
    assert not report.passed
    assert len(report.reason) < 700
    assert time.process_time() - started < 1.0


def test_a_failing_guard_fails_the_block_instead_of_raising(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(block: str, framework: object) -> GuardReport:
        raise RecursionError("too deep")

    monkeypatch.setattr("evolution.guards.imports.check", broken)
    report = verdict(mixer_block("return v"))
    assert (report.guard, report.passed) == ("imports", False)
    assert "too deep" in report.reason


def test_every_registered_guard_resolves_and_stages_are_ordered() -> None:
    assert [guard.stage for guard in GUARDS] == sorted((guard.stage for guard in GUARDS), reverse=True)
    for guard in GUARDS:
        assert callable(guard.function())
        assert guard.summary


def test_reports_survive_json_and_bad_rows_are_refused() -> None:
    report = GuardReport(
        guard="a", passed=False, reason="b", evidence={"leak": float("inf"), "at": (1, 2)}, seconds=0.5
    )
    row = report.to_json()
    assert row["evidence"] == {"leak": "inf", "at": [1, 2]}
    assert GuardReport.from_json(row).to_json() == row
    with pytest.raises(ValueError, match="not a guard report"):
        GuardReport.from_json({"guard": "a"})
    with pytest.raises(ValueError, match="not a guard report"):
        GuardReport.from_json({**row, "passed": 1})


PIECES = [
    "torch", "nn", "F", "math", "self", "x", "q", "k", "v", "super", "eval", "__class__", "_parameters", ".", "(", ")",
    "[", "]", "{", "}", ":", ",", "=", "+", "**", "@", "lambda", "def f", "class A", "return", "import", "from", "if",
    "for", "in", "not", "yield", "await", "async", "global", "with", "as", "try", "except", "match", "case", "\n",
    "\n    ", "\n        ", "10", "1e9", "'a'", 'f"{', "}", '"', "'''", "#", "\\", "\t", "\r", "\x0c", "\x00", "\ud800",
    "# EVOLVE-BLOCK-END\n", "# EVOLVE-BLOCK-START\n", "Mixer", "forward", "é", "中", "...", "->", ":=", "*", "**kw",
]  # fmt: skip


@st.composite
def mutated_blocks(draw: st.DrawFn) -> str:
    """A valid block with pieces put in, spans removed and spans repeated."""
    block = draw(st.sampled_from([mixer_block("return self.attend(q, k, v)"), *list(HONEST.values())[:8]]))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(block)))
        end = min(len(block), start + draw(st.integers(0, 30)))
        piece = draw(st.sampled_from(PIECES) | st.text(max_size=8) | st.just(block[start:end] * 2))
        block = block[:start] + piece + block[end:]
    return block


TEXTS = st.one_of(
    st.text(max_size=200),
    st.text(alphabet=string.printable, max_size=200),
    st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")),
    st.binary(max_size=200).map(lambda raw: raw.decode("utf-8", errors="surrogateescape")),
    st.lists(st.sampled_from(PIECES), max_size=60).map(" ".join),
    st.lists(st.sampled_from(PIECES), max_size=60).map("".join),
    mutated_blocks(),
)


def _judged(text: str) -> None:
    reports = static_guards(MIXER, text)
    assert reports
    assert all(report.passed for report in reports[:-1])
    if reports[-1].passed:
        # What passes can be spliced, and nothing outside the block has moved.
        source = MIXER.program(text).source
        pristine = MIXER.pristine
        head, tail = pristine.split("# EVOLVE-BLOCK-START")[0], pristine.split("# EVOLVE-BLOCK-END")[1]
        assert source.startswith(head)
        assert source.endswith(tail)


@given(TEXTS)
@example("x" * 100_000)
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_text_makes_the_static_guards_raise(text: str) -> None:
    _judged(text)


@pytest.mark.slow
@given(TEXTS)
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_text_makes_the_static_guards_raise_ten_thousand_times(text: str) -> None:
    _judged(text)

"""Blocks that misbehave: the reference's block with one poison each.

Some poisons run when the block is imported, some when it is built, some in the forward
pass, and some replace what it returns. What a block must end in stands in the file of
targets, not here. They are only ever run in a confined worker.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from frameworks.registry import Framework

Place = Literal["import", "init", "forward", "return"]

_INIT = "        super().__init__()\n"
_FORWARD = "    def forward(self, x, q, k, v):\n"
_RETURN = "return self.output(x, v, y)"


@dataclass(frozen=True, kw_only=True)
class HostileBlock:
    """One way to misbehave.

    Attributes:
        name: the row's name.
        place: where the poison runs; for `return`, it is the expression that is returned.
        poison: the code, with @NAME@ where a path or port of the bench is filled in.
        says: words that the worker's error must hold, as evidence that the poison did run.
        unchanged: it computes what the reference computes, so its loss must be the reference's.
    """

    name: str
    place: Place
    poison: str
    says: str = ""
    unchanged: bool = False

    def block(self, framework: Framework, fill: Mapping[str, str]) -> str:
        """The poisoned block.

        Args:
            framework: `coefficient_dynamics`, whose start block is poisoned.
            fill: what stands for each @NAME@.
        """
        code = _filled(textwrap.dedent(self.poison).strip("\n") + "\n", fill)
        start = framework.start_block
        if self.place == "import":
            return f"{code}\n\n{start}"
        if self.place == "return":
            return start.replace(_RETURN, f"return {code.strip()}")
        line = _INIT if self.place == "init" else _FORWARD
        return start.replace(line, line + textwrap.indent(code, " " * 8))

    def words(self, fill: Mapping[str, str]) -> str:
        """`says` with every @NAME@ filled in."""
        return _filled(self.says, fill)


def _filled(text: str, fill: Mapping[str, str]) -> str:
    for name, value in fill.items():
        text = text.replace(f"@{name}@", value)
    return text


HOSTILE_BLOCKS = (
    HostileBlock(name="raises", place="forward", poison='raise ValueError("on purpose")', says="on purpose"),
    HostileBlock(
        name="raises a BaseException that cannot be printed",
        place="forward",
        poison="""
            class Stop(BaseException):
                def __str__(self):
                    raise SystemExit(9)
            raise Stop
        """,
    ),
    HostileBlock(name="hangs in Python", place="forward", poison="import time\nwhile True:\n    time.sleep(60)"),
    HostileBlock(name="hangs in C", place="forward", poison="import ctypes\nctypes.PyDLL(None).sleep(3600)"),
    HostileBlock(name="runs a busy loop", place="forward", poison="while True:\n    pass"),
    HostileBlock(name="stops itself", place="init", poison="import os\nos.kill(os.getpid(), 19)"),
    HostileBlock(name="segfaults", place="forward", poison="import ctypes\nctypes.string_at(0)", says="SIGSEGV"),
    HostileBlock(name="leaves by os._exit(0)", place="forward", poison="import os\nos._exit(0)", says="exit status 0"),
    HostileBlock(name="leaves by sys.exit(0)", place="forward", poison="import sys\nsys.exit(0)", says="SystemExit"),
    HostileBlock(name="aborts", place="forward", poison="import os\nos.abort()", says="SIGABRT"),
    HostileBlock(
        name="forks children that outlive it",
        place="init",
        poison="""
            import os, signal, time
            for _ in range(3):
                if os.fork() == 0:
                    os.setsid()
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    if os.fork() == 0:
                        os.execvp("sleep", ["sleep", "@MARK@"])
                    time.sleep(3600)
        """,
        unchanged=True,
    ),
    HostileBlock(
        name="is a fork bomb",
        place="init",
        poison="""
            import os
            while True:
                try:
                    os.fork()
                except OSError:
                    pass
        """,
        says="processes",
    ),
    HostileBlock(
        name="eats memory", place="forward", poison="kept = []\nwhile True:\n    kept.append(torch.ones(2**22))"
    ),
    HostileBlock(
        name="fills the disk",
        place="forward",
        poison="""
            for number in range(10**6):
                with open(f"filler{number}", "wb") as file:
                    file.write(b"x" * 2**22)
        """,
        says="No space left",
    ),
    HostileBlock(
        name="prints 1 GB",
        place="init",
        poison="import os\nfor _ in range(1024):\n    os.write(1, b'x' * 2**20)",
        unchanged=True,
    ),
    HostileBlock(name="returns NaN", place="return", poison="self.output(x, v, y) * math.nan"),
    HostileBlock(name="returns inf", place="return", poison="torch.full_like(y, math.inf)"),
    HostileBlock(name="returns huge numbers", place="return", poison="self.output(x, v, y) * 1e38"),
    HostileBlock(name="returns a string", place="return", poison="'a tensor'", says="str"),
    HostileBlock(name="returns None", place="return", poison="None", says="None"),
    HostileBlock(name="returns complex numbers", place="return", poison="torch.complex(y, y)"),
    HostileBlock(name="returns another shape", place="return", poison="y[..., :1]"),
    HostileBlock(
        name="starts threads",
        place="init",
        poison="""
            import threading, time
            for _ in range(8):
                threading.Thread(target=time.sleep, args=(3600,)).start()
        """,
        unchanged=True,
    ),
    HostileBlock(
        name="changes the seed",
        place="forward",
        poison="torch.manual_seed(7)",
        unchanged=True,
    ),
    HostileBlock(
        name="monkeypatches torch",
        place="import",
        poison="""
            F.gelu = F.relu
            torch.manual_seed = print
            torch.nn.functional.cross_entropy = lambda *rest, **more: torch.zeros((), requires_grad=True)
        """,
    ),
    HostileBlock(
        name="reads the environment",
        place="forward",
        poison="""
            import os
            with open("/proc/self/environ") as file:
                seen = file.read() + repr(dict(os.environ))
            raise RuntimeError(f"read {len(os.environ)} variables, the key among them: {'@TERCES@'[::-1] in seen}")
        """,
        says="the key among them: False",
    ),
    HostileBlock(
        name="opens a socket",
        place="forward",
        poison="import socket\nsocket.create_connection(('127.0.0.1', @PORT@), timeout=2).sendall(b'stolen')",
        says="Error: [Errno",
    ),
    HostileBlock(
        name="writes outside its scratch folder",
        place="forward",
        poison="with open('@OUTSIDE@', 'w') as file:\n    file.write('was here')",
        says="@OUTSIDE@",
    ),
    HostileBlock(
        name="deletes its inputs",
        place="forward",
        poison="""
            import os, pathlib
            for path in pathlib.Path("@CORPUS@").iterdir():
                os.unlink(path)
        """,
        says="@CORPUS@",
    ),
    HostileBlock(
        name="is a recursion bomb",
        place="forward",
        poison="def again(depth):\n    return again(depth + 1) + 1\nagain(0)",
        says="RecursionError",
    ),
    HostileBlock(
        name="is a recursion bomb in C",
        place="forward",
        poison="""
            import sys
            sys.setrecursionlimit(10**9)
            nested = []
            for _ in range(2 * 10**5):
                nested = [nested]
            repr(nested)
        """,
        says="SIGSEGV",
    ),
    HostileBlock(
        name="is an import bomb",
        place="import",
        poison="""
            import importlib.abc, importlib.util, sys
            class Bomb(importlib.abc.MetaPathFinder, importlib.abc.Loader):
                def find_spec(self, name, path=None, target=None):
                    return importlib.util.spec_from_loader(name, self) if name.startswith("bomb") else None
                def create_module(self, spec):
                    return None
                def exec_module(self, module):
                    for branch in "ab":
                        importlib.import_module(module.__name__ + branch)
            sys.meta_path.insert(0, Bomb())
            import bomb
        """,
        says="RecursionError",
    ),
    HostileBlock(
        name="forges a result that is not finite",
        place="init",
        poison="""
            import os
            os.write(3, b'{"returned": {"status": "completed", "val_loss": -Infinity}}')
            os._exit(0)
        """,
        says="InvalidResult",
    ),
    HostileBlock(
        name="forges a result that looks right",
        place="init",
        poison="""
            import os
            os.write(3, b'{"returned": {"status": "completed", "val_loss": 0.001, "seconds": 1.0}}')
            os._exit(0)
        """,
        says="InvalidResult",
    ),
    HostileBlock(
        name="edits the harness",
        place="init",
        poison="import training.evaluation\nopen(training.evaluation.__file__, 'a').write('\\n')",
        says="Error: [Errno",
    ),
    HostileBlock(
        name="writes bytecode caches",
        place="init",
        poison="""
            import os, training
            folder = os.path.join(os.path.dirname(training.__file__), "__pycache__")
            open(os.path.join(folder, "evaluation.cpython-311.pyc"), "wb").write(b"")
        """,
        says="Error: [Errno",
    ),
    HostileBlock(
        name="swaps links",
        place="init",
        poison="import os, training\nos.symlink('/tmp', os.path.dirname(training.__file__) + '.swapped')",
        says="Error: [Errno",
    ),
    HostileBlock(name="closes every file", place="init", poison="import os\nos.closerange(0, 256)", says="exit status"),
    HostileBlock(name="kills its parent", place="init", poison="import os\nos.kill(os.getppid(), 9)", unchanged=True),
)
"""All of them, in the order of the rows."""

QUICK = ("raises", "segfaults", "returns NaN", "leaves by os._exit(0)", "changes the seed")
"""A few that end at once."""

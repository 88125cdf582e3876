"""Try what the sandbox needs of the kernel, once, in a process of its own: `python -m evolution.sandbox.probe`.

Prints {"failure": null}, or the first step that was refused.
"""

from __future__ import annotations

import json
import os
import socket
from typing import NoReturn

from .file_system import Bind, build_file_system
from .namespaces import children_in_new_pid_namespace, enter_keeper_namespaces, enter_user_namespace

_SCRATCH_BYTES = 1 << 20
_FINE = "fine"


def main() -> None:
    """Entry point of the process."""
    read, write = os.pipe()
    try:
        enter_user_namespace()
        child = os.fork()
        if child == 0:
            _try_as_warm_parent(write)
        os.close(write)
        os.waitpid(child, 0)
        answer = os.read(read, 1 << 16).decode() or "a process of the probe died"
    except OSError as error:
        answer = str(error)
    print(json.dumps({"failure": None if answer == _FINE else answer}))


def _try_as_warm_parent(write: int) -> NoReturn:
    """In the user namespace, as init of its pid namespace."""
    try:
        own = os.open("/proc/self/ns/pid", os.O_RDONLY)
        with children_in_new_pid_namespace(own):
            child = os.fork()
            if child == 0:
                os.write(write, (_try_as_keeper() or _FINE).encode())
                os._exit(0)
        os.waitpid(child, 0)
    except OSError as error:
        os.write(write, str(error).encode())
    finally:
        os._exit(0)


def _try_as_keeper() -> str | None:
    try:
        enter_keeper_namespaces()
        socket.sethostname("probe")
        build_file_system([Bind("/usr")], ["/dev/null"], _SCRATCH_BYTES)
        if os.path.exists("/root") or os.listdir("/proc/self/fd") is None:
            return "the old root is still there"
    except OSError as error:
        return str(error)
    return None


if __name__ == "__main__":
    main()

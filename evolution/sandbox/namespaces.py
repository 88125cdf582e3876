"""Enter the namespaces of the sandbox: as root and, where the kernel lets it, as an ordinary user.

The warm parent enters a user namespace (it gains privileges there, and there only) and a pid namespace whose init
it becomes: when it dies, the kernel kills every worker and all their descendants. Each worker's keeper is the init
of a pid namespace of its own within, and has its own mount, network, IPC and host-name namespaces.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from . import system_calls as linux

_KEEPER = linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS


def enter_user_namespace() -> None:
    """Move this single-threaded process into a new user namespace; children are born into a new pid namespace.

    The user keeps its own number inside, so files have the owners they have outside.

    Raises:
        OSError: the kernel refused; the message names the step.
    """
    user, group = os.geteuid(), os.getegid()
    linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWPID)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{group} {group} 1")
    with contextlib.suppress(OSError):  # read-only in some containers; the system-call filter refuses it as well
        _write("/proc/sys/user/max_user_namespaces", "0")


def enter_keeper_namespaces() -> None:
    """Mount, network (with not even a loopback), IPC and host-name namespaces for one worker. Raises: OSError."""
    linux.unshare(_KEEPER)
    with contextlib.suppress(OSError):
        linux.unshare(linux.CLONE_NEWCGROUP)


@contextlib.contextmanager
def children_in_new_pid_namespace(own_namespace: int) -> Iterator[None]:
    """The first child forked within is the init of a new pid namespace; the child must not leave the block.

    Args:
        own_namespace: open descriptor of this process's /proc/self/ns/pid.
    """
    linux.unshare(linux.CLONE_NEWPID)
    try:
        yield
    finally:
        linux.enter_namespace(own_namespace, linux.CLONE_NEWPID)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"write {text!r} to {path}: {error.strerror}") from error
    finally:
        os.close(descriptor)

"""The Linux system calls of the sandbox that Python does not offer, through the C library.

Numbers are only used where the C library has no wrapper on some supported system; x86-64 and aarch64 are known.
"""

from __future__ import annotations

import ctypes
import os
import platform

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MS_RELATIME = 32, 4096, 16384, 1 << 18, 1 << 21
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_SECUREBITS = 1, 4, 24, 28
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_CAP_AMBIENT = 36, 38, 22, 47

_NUMBERS = {
    "x86_64": {"pivot_root": 155, "capset": 126, "mount_setattr": 442, "setns": 308},
    "aarch64": {"pivot_root": 41, "capset": 91, "mount_setattr": 442, "setns": 268},
}
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000

_library = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _system_call(name: str, *arguments: object) -> int:
    machine = platform.machine()
    if machine not in _NUMBERS:
        raise OSError(38, f"{name}: the machine {machine!r} is not known, only {', '.join(_NUMBERS)}")
    return int(_library.syscall(_NUMBERS[machine][name], *arguments))


def unshare(flags: int) -> None:
    """Move this process into new namespaces (CLONE_NEW*). Raises: OSError."""
    _check(_library.unshare(flags), f"unshare({flags:#x})")


def enter_namespace(descriptor: int, kind: int) -> None:
    """Join the namespace behind an open /proc/PID/ns file. Raises: OSError."""
    _check(_system_call("setns", ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, options: str | None = None) -> None:
    """mount(2). Raises: OSError, with the target in its message."""
    text = [None if value is None else os.fsencode(value) for value in (source, target, kind, options)]
    done = _library.mount(text[0], text[1], text[2], ctypes.c_ulong(flags), text[3])
    _check(done, f"mount {source} on {target}")


def detach(target: str) -> None:
    """Take a mount and everything below it out of the tree. Raises: OSError."""
    _check(_library.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root and hang the old one at `put_old`. Raises: OSError."""
    arguments = (ctypes.c_char_p(os.fsencode(new_root)), ctypes.c_char_p(os.fsencode(put_old)))
    _check(_system_call("pivot_root", *arguments), f"pivot_root {new_root}")


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def restrict_mount(target: str, flags: int, *, recursive: bool) -> None:
    """Add MS_RDONLY, MS_NOSUID, MS_NODEV or MS_NOEXEC to a mount, and to all below it if `recursive`.

    Raises: OSError: with number ENOSYS where the kernel is older than 5.12.
    """
    attributes = _MountAttributes(attr_set=flags)  # MOUNT_ATTR_* have the values of MS_* for these four
    done = _system_call(
        "mount_setattr",
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_uint(_AT_RECURSIVE if recursive else 0),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    _check(done, f"mount_setattr {target}")


def control_process(option: int, *values: int) -> int:
    """prctl(2). Raises: OSError."""
    padded = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    return _check(_library.prctl(option, *padded), f"prctl({option})")


def control_process_with(option: int, first: int, structure: ctypes.Structure) -> None:
    """prctl(2) whose second value is a pointer. Raises: OSError."""
    zero = ctypes.c_ulong(0)
    _check(_library.prctl(option, ctypes.c_ulong(first), ctypes.byref(structure), zero, zero), f"prctl({option})")


def drop_all_capabilities() -> None:
    """Empty the effective, permitted and inheritable capability sets. Raises: OSError."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    _check(_system_call("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)())), "capset")

"""A seccomp filter: system calls that a candidate never needs and that reach past namespaces and limits.

Choices: a short list of refusals (EPERM), not a list of permissions, because torch and GPU drivers use much of the
kernel; the namespaces are the wall and this is the fence before it. Refused are new namespaces and mounts, tracing
other processes, the kernel's key rings (which no namespace separates), kernel modules, bpf and io_uring, and memory
that the supervisor cannot see (System V shared memory, anonymous memory files). The keeper has the worker's user, and
the kernel lets a user lower the limits and priority of all processes of that user: those calls are refused on process
1, or altogether. clone3 answers "not known", so the C
library falls back to clone, whose flags a filter can read.
"""

from __future__ import annotations

import ctypes
import errno
import platform

from . import system_calls

_REFUSED = {  # name: (x86_64, aarch64)
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "open_by_handle_at": (304, 265),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_secret": (447, 447),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
}
_REFUSED_ON_INIT = {  # allowed on oneself, refused where the first argument is process 1, the keeper
    "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
}
_MEMORY_FILE = (319, 279)
_SOCKET = (41, 198)
_FAMILIES = (1, 2, 10, 16)  # local, IPv4, IPv6, netlink: a network namespace holds these; of others (vsock) not all
_CLONE = (56, 220)
_CLONE3 = 435
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_*
_X32_BIT = 0x40000000
_NAMESPACE_FLAGS = 0x7E020000  # every CLONE_NEW* that clone takes

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_MODE_FILTER = 2


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("jump_true", ctypes.c_uint8),
        ("jump_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def install_filter(*, allow_memory_files: bool) -> bool:
    """Install the filter on this process, for good; True if the kernel took it.

    Needs PR_SET_NO_NEW_PRIVS. On a machine whose numbers are not known, or a kernel without seccomp, nothing is
    installed: the namespaces and limits hold without it.
    """
    if platform.machine() not in _ARCHITECTURES:
        return False
    column, architecture = _ARCHITECTURES[platform.machine()]
    refuse, unknown = _ERROR | errno.EPERM, _ERROR | errno.ENOSYS
    refused = [numbers[column] for numbers in _REFUSED.values()]
    if not allow_memory_files:
        refused.append(_MEMORY_FILE[column])
    rows = [
        (_LOAD, 0, 0, 4),  # the architecture of the call: a 32-bit call has other numbers
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, refuse),
        (_LOAD, 0, 0, 0),  # the number of the call
        (_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, refuse),
        (_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, unknown),
    ]
    for number in refused:
        rows += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, refuse)]
    for numbers in _REFUSED_ON_INIT.values():
        rows += [
            (_EQUAL, 0, 4, numbers[column]),
            (_LOAD, 0, 0, 16),  # its first argument: whom it concerns
            (_EQUAL, 0, 1, 1),
            (_RETURN, 0, 0, refuse),
            (_RETURN, 0, 0, _ALLOW),
        ]
    rows += [(_EQUAL, 0, 3 + len(_FAMILIES), _SOCKET[column]), (_LOAD, 0, 0, 16)]
    rows += [(_EQUAL, len(_FAMILIES) - index, 0, family) for index, family in enumerate(_FAMILIES)]
    rows += [(_RETURN, 0, 0, refuse), (_RETURN, 0, 0, _ALLOW)]
    rows += [
        (_EQUAL, 0, 3, _CLONE[column]),
        (_LOAD, 0, 0, 16),  # its first argument: the flags, low half
        (_ANY_BIT, 0, 1, _NAMESPACE_FLAGS),
        (_RETURN, 0, 0, refuse),
        (_RETURN, 0, 0, _ALLOW),
    ]
    instructions = (_Instruction * len(rows))(*(_Instruction(*row) for row in rows))
    program = _Program(len(rows), ctypes.cast(instructions, ctypes.POINTER(_Instruction)))
    try:
        system_calls.control_process_with(system_calls.PR_SET_SECCOMP, _MODE_FILTER, program)
    except OSError:
        return False
    return True

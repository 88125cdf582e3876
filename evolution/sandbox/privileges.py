"""Give up every privilege of this process, for good, before untrusted code runs in it."""

from __future__ import annotations

import contextlib

from . import system_calls
from .system_call_filter import install_filter

_NO_ROOT_LOCKED = 0b1111  # SECBIT_NOROOT, NO_SETUID_FIXUP and their locks: user 0 is nobody special, also after exec
_LAST_CAPABILITY = 63
_CLEAR_ALL_AMBIENT = 4


def drop_privileges(*, allow_memory_files: bool) -> None:
    """No capability, none to be gained by exec, no call that reaches past the namespaces.

    Args:
        allow_memory_files: keep memfd_create (GPU drivers want it; without it a candidate cannot hide memory there).
    """
    system_calls.control_process(system_calls.PR_SET_NO_NEW_PRIVS, 1)
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            system_calls.control_process(system_calls.PR_CAPBSET_DROP, capability)
        except OSError:
            break  # past the last capability of this kernel, or (without privileges to drop) at the first
    for option, value in (
        (system_calls.PR_CAP_AMBIENT, _CLEAR_ALL_AMBIENT),
        (system_calls.PR_SET_SECUREBITS, _NO_ROOT_LOCKED),
    ):
        with contextlib.suppress(OSError):  # an ordinary user without namespaces may not, and has nothing to clear
            system_calls.control_process(option, value)
    system_calls.drop_all_capabilities()
    install_filter(allow_memory_files=allow_memory_files)

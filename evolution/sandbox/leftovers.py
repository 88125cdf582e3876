"""Make what a worker left in its persistent scratch folder harmless to whoever reads or writes there next."""

from __future__ import annotations

import contextlib
import os
import stat

_OWNER_ONLY = 0o700
_SET_ID = stat.S_ISUID | stat.S_ISGID


def make_harmless(folder: str) -> list[str]:
    """Remove everything below `folder` that is neither a plain file nor a folder, and take away set-id bits.

    A link would lead the supervisor's next write to the folder anywhere; opening a named pipe would hang it. Only
    after every process of the worker is dead, so that nothing is swapped meanwhile.

    Returns:
        The paths removed.
    """
    removed: list[str] = []
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        with contextlib.suppress(OSError), os.scandir(current) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    mode = entry.stat(follow_symlinks=False).st_mode
                    if stat.S_ISDIR(mode):
                        if mode & _OWNER_ONLY != _OWNER_ONLY or mode & _SET_ID:
                            os.chmod(entry.path, (mode | _OWNER_ONLY) & 0o777)
                        waiting.append(entry.path)
                    elif not stat.S_ISREG(mode):
                        os.unlink(entry.path)
                        removed.append(entry.path)
                    elif mode & _SET_ID:
                        os.chmod(entry.path, mode & 0o777)
    return removed

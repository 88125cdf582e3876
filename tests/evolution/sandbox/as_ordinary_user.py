"""Run a Python program as user 65534 in a private mount namespace: `as_ordinary_user.py PROGRAM FOLDER...`; needs root.

Folders that an ordinary user cannot get to, because a folder above them is closed, are opened in that namespace only.
"""

from __future__ import annotations

import os
import stat
import sys

from evolution.sandbox import system_calls as linux

NOBODY = 65534


def first_closed_folder(path: str) -> str | None:
    parts = path.strip("/").split("/")
    for depth in range(1, len(parts)):
        folder = "/" + "/".join(parts[:depth])
        if not os.stat(folder).st_mode & stat.S_IXOTH:
            return folder
    return None


def main() -> None:
    program, *folders = sys.argv[1:]
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    closed = {os.path.realpath(folder): first_closed_folder(os.path.realpath(folder)) for folder in folders}
    handles = {folder: os.open(folder, os.O_PATH) for folder, above in closed.items() if above}
    for above in {above for above in closed.values() if above}:
        linux.mount("open", above, "tmpfs", 0, "mode=0755")
    for folder, handle in handles.items():
        os.makedirs(folder, exist_ok=True)
        linux.mount(f"/proc/self/fd/{handle}", folder, flags=linux.MS_BIND | linux.MS_REC)
        os.close(handle)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    os.chdir("/")
    os.environ["HOME"] = "/tmp"
    os.execv(sys.executable, [sys.executable, "-c", program])


if __name__ == "__main__":
    main()

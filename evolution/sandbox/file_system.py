"""Build the file system of one worker: an empty root, what it may read, its scratch folders, and nothing else.

Runs in the first process of a fresh mount namespace and pid namespace, with privileges over both. The old root is
detached at the end, so that what was not mounted does not exist for the worker.

Choices: everything is mounted without set-user-id programs; /proc is that of the worker's own pid namespace and is
read-only, because a supervisor that is root would otherwise lend the worker write access to the kernel's settings
in /proc/sys; private scratch (/tmp) and /dev/shm are in-memory and have a size.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from . import system_calls as linux

_OLD = "/.old"
_SAFE = linux.MS_NOSUID | linux.MS_NODEV
_MOST_FILES = 16384
_NO_ACCESS_TIMES, _ST_RELATIME = 1024 | 2048, 4096
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}


@dataclass(frozen=True)
class Bind:
    """One path of the machine that the worker sees at the same place."""

    path: str
    writable: bool = False


def build_file_system(binds: Sequence[Bind], devices: Sequence[str], scratch_bytes: int) -> None:
    """Replace this mount namespace's tree.

    Args:
        binds: paths of the machine; a deeper path overrides a shallower one.
        devices: device files to show under /dev.
        scratch_bytes: room in /tmp, and again in /dev/shm.

    Raises:
        OSError: the kernel refused a step; the message names it.
    """
    plan, links = _resolved(binds)
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    base = "/tmp" if os.path.isdir("/tmp") else "/var"
    linux.mount("root", base, "tmpfs", _SAFE, "size=4m,mode=0755")
    os.mkdir(base + _OLD)
    linux.pivot_root(base, base + _OLD)
    os.chdir("/")

    for folder in ("/proc", "/sys", "/dev", "/tmp", "/var", "/etc", "/run"):
        os.mkdir(folder, 0o755)
    _make_devices(devices, scratch_bytes)
    linux.mount("tmp", "/tmp", "tmpfs", _SAFE, f"size={scratch_bytes},nr_inodes={_MOST_FILES},mode=1777")
    os.symlink("/tmp", "/var/tmp")
    for path in plan:
        _bind(path, plan)
    for path, real in links.items():
        if not os.path.lexists(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(real, path)
    linux.mount("proc", "/proc", "proc", _SAFE | linux.MS_NOEXEC)
    for path in ("/proc", "/dev"):
        _restrict(path, linux.MS_RDONLY)

    linux.detach(_OLD)
    os.rmdir(_OLD)
    _restrict("/", linux.MS_RDONLY)


def _resolved(binds: Sequence[Bind]) -> tuple[dict[str, bool], dict[str, str]]:
    """What to mount (real path -> writable), shallow first, and the links that lead there (path -> real path).

    Links are followed now, while the machine's own tree is still there.
    """
    plan: dict[str, bool] = {}
    links: dict[str, str] = {}
    for bind in binds:
        path, real = os.path.abspath(bind.path), os.path.realpath(bind.path)
        if not os.path.exists(real):
            raise FileNotFoundError(errno.ENOENT, "no such file or folder", bind.path)
        plan[real] = plan.get(real, False) or bind.writable
        if path != real:
            links[path] = real
    return dict(sorted(plan.items(), key=lambda row: (row[0].count("/"), row[0]))), links


def _bind(path: str, plan: dict[str, bool]) -> None:
    """Show the machine's `path` at the same place."""
    writable = plan[path]
    above = [other for other in plan if path.startswith(other + "/")]
    if not writable and above and not plan[above[-1]]:
        return  # there already, within a folder that is shown read-only
    source = _OLD + path
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    elif not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
    linux.mount(source, path, flags=linux.MS_BIND | linux.MS_REC)
    _restrict(path, _SAFE if writable else _SAFE | linux.MS_RDONLY, recursive=True)


def _make_devices(devices: Sequence[str], scratch_bytes: int) -> None:
    linux.mount("dev", "/dev", "tmpfs", linux.MS_NOSUID | linux.MS_NOEXEC, "size=1m,mode=0755")
    for device in devices:
        if os.path.isdir(_OLD + device):
            os.makedirs(device)
        else:
            os.close(os.open(device, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        linux.mount(_OLD + device, device, flags=linux.MS_BIND | linux.MS_REC)
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, f"/dev/{name}")
    os.mkdir("/dev/shm", 0o1777)
    linux.mount("shm", "/dev/shm", "tmpfs", _SAFE, f"size={scratch_bytes},nr_inodes={_MOST_FILES},mode=1777")


def _restrict(path: str, flags: int, *, recursive: bool = False) -> None:
    """Add restrictions to a mount, by mount_setattr or, on a kernel before 5.12, by remounting."""
    try:
        linux.restrict_mount(path, flags, recursive=recursive)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        for point in [*(_mounts_below(path) if recursive else ()), path]:
            found = os.statvfs(point).f_flag
            kept = found & (linux.MS_RDONLY | _SAFE | linux.MS_NOEXEC | _NO_ACCESS_TIMES)  # ST_* have the same bits
            kept |= linux.MS_RELATIME if found & _ST_RELATIME else 0
            linux.mount("none", point, flags=linux.MS_REMOUNT | linux.MS_BIND | flags | kept)


def _mounts_below(path: str) -> Iterator[str]:
    with open(_OLD + "/proc/self/mountinfo", "rb") as table:
        for line in table:
            escaped = line.split()[4]  # white space stands there as octal
            point = os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), escaped))
            if point.startswith(path.rstrip("/") + "/"):
                yield point

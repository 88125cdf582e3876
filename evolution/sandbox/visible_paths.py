"""What of the machine a worker can see: an allow-list of read-only paths.

The system's programs and libraries, the known parts of the Python installation, and from every other import path
only the importable things in it (packages and modules), so that a folder of runs, a ledger or a .git beside the code
stays unseen. Home folders, /etc but a few files, /var, /run and every other user's files are not in the list.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator

_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/gnu/store",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/group",
    "/etc/hosts",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/OpenCL",
    "/etc/nvidia",
    "/sys/devices/system",
)
_GPU_SYSTEM = ("/sys/bus", "/sys/class", "/sys/devices", "/sys/module", "/opt/rocm")
_PREFIX_PARTS = (
    "bin",
    "sbin",
    "lib",
    "lib32",
    "lib64",
    "libexec",
    "include",
    "share",
    "etc",
    "ssl",
    "nvvm",
    "targets",
    "pyvenv.cfg",
)
_PROJECT = ("frameworks", "models", "data", "training", "evolution")
_INSTALLED = ("site-packages", "dist-packages")
_SUFFIXES = (".py", ".so", ".zip", ".egg")
_MOST_IN_ONE_FOLDER = 500


def devices() -> list[str]:
    """Device files a worker gets: the harmless ones and whatever GPUs there are."""
    found = [f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom")]
    return [path for path in found if os.path.exists(path)] + gpu_devices()


def gpu_devices() -> list[str]:
    """Device files of GPUs, in order; empty where there are none."""
    try:
        names = sorted(os.listdir("/dev"))
    except OSError:
        return []
    return [f"/dev/{name}" for name in names if name.startswith("nvidia") or name in ("kfd", "dri", "dxg")]


def visible_paths(import_path: Iterable[str]) -> list[str]:
    """Paths that every worker may read, existing ones only.

    Args:
        import_path: the folders Python imports from (sys.path of the warm parent).
    """
    system = _SYSTEM + (_GPU_SYSTEM if gpu_devices() else ())
    prefixes = sorted({sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix})
    paths = [*system, *(os.path.join(prefix, part) for prefix in prefixes for part in _PREFIX_PARTS)]
    roots = [os.path.realpath(path) for path in paths if os.path.isdir(path)]
    for folder in [*import_path, *_project_folders()]:
        real = os.path.realpath(folder)
        if any(real == root or real.startswith(root + os.sep) for root in roots):
            continue
        if os.path.basename(real) in _INSTALLED or os.path.isfile(real):
            paths.append(folder)
        elif os.path.isdir(real):
            paths.extend(_importable(folder))
    return list(dict.fromkeys(path for path in paths if os.path.exists(path)))


def _importable(folder: str) -> Iterator[str]:
    """Packages and modules right in `folder`."""
    found = 0
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        package = os.path.isfile(os.path.join(entry.path, "__init__.py"))
        if package or (entry.name.endswith(_SUFFIXES) and entry.is_file()):
            yield entry.path
            found += 1
            if found == _MOST_IN_ONE_FOLDER:
                return


def _project_folders() -> Iterator[str]:
    """Folders of the project's own packages: an editable install maps them without a folder on sys.path."""
    for name in _PROJECT:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        for location in (spec.submodule_search_locations or ()) if spec else ():
            yield os.path.dirname(location)

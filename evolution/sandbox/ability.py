"""What this machine lets a sandbox do."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .environment import worker_environment

_PROBE_SECONDS = 30


class SandboxUnavailable(RuntimeError):  # noqa: N818
    """This machine does not let untrusted code be confined; the message says why and what to do."""


@dataclass(frozen=True)
class Ability:
    """What the kernel allows here.

    Attributes:
        namespaces: workers can be confined by namespaces; the sandbox needs nothing else.
        bubblewrap: the `bwrap` program is installed (not needed; said because it shows namespaces can be had).
        reason: one sentence: how workers are confined, or why they cannot be and the fix.
    """

    namespaces: bool
    bubblewrap: bool
    reason: str


@functools.cache
def sandbox_ability() -> Ability:
    """Try the namespaces of the sandbox in a short-lived process; remembered for the life of this one."""
    bubblewrap = shutil.which("bwrap") is not None
    if sys.platform != "linux":
        return Ability(False, bubblewrap, f"The sandbox needs Linux, this is {sys.platform!r}: use a Linux machine.")
    environment = worker_environment(os.environ, [str(Path(__file__).parents[2]), *sys.path])
    command = [sys.executable, "-P", "-B", "-m", "evolution.sandbox.probe"]
    try:
        done = subprocess.run(
            command, env=environment, cwd="/", capture_output=True, timeout=_PROBE_SECONDS, check=False, text=True
        )
        failure = json.loads(done.stdout)["failure"] if done.returncode == 0 else (done.stderr.strip() or "no answer")
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
        failure = f"{type(error).__name__}: {error}"
    if failure is None:
        return Ability(True, bubblewrap, "Workers run in user, mount, pid, network and IPC namespaces of their own.")
    return Ability(False, bubblewrap, f"Workers cannot be confined here ({failure.splitlines()[-1]}): {_fix()}.")


def _fix() -> str:
    """The command or setting that most likely mends it."""
    settings = {
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
            "1",
            "run `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`",
        ),
        "/proc/sys/kernel/unprivileged_userns_clone": ("0", "run `sudo sysctl -w kernel.unprivileged_userns_clone=1`"),
        "/proc/sys/user/max_user_namespaces": ("0", "run `sudo sysctl -w user.max_user_namespaces=10000`"),
    }
    for path, (refusing, fix) in settings.items():
        try:
            if Path(path).read_text().strip() == refusing:
                return fix
        except OSError:
            continue
    return (
        "in a container, start it with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined "
        "--security-opt systempaths=unconfined`"
    )

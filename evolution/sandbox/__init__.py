"""Untrusted code in workers that can reach nothing and can always be killed."""

from .ability import Ability, SandboxUnavailable, sandbox_ability
from .limits import Limits
from .result import Exited, Killed, OutOfMemory, Raised, Returned, TimedOut, WorkerResult
from .supervisor import Sandbox

__all__ = [
    "Ability",
    "Exited",
    "Killed",
    "Limits",
    "OutOfMemory",
    "Raised",
    "Returned",
    "Sandbox",
    "SandboxUnavailable",
    "TimedOut",
    "WorkerResult",
    "sandbox_ability",
]

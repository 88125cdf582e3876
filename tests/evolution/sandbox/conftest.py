"""One warm sandbox for all tests that do not hurt it, and ways to see what is still alive."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the targets of the calls live beside the tests

from live_processes import alive_below, wait_until

from evolution.sandbox import Sandbox, sandbox_ability


@pytest.fixture(scope="session")
def needs_namespaces() -> None:
    ability = sandbox_ability()
    if not ability.namespaces:
        pytest.skip(ability.reason)


@pytest.fixture(scope="session")
def sandbox(needs_namespaces: None) -> Iterator[Sandbox]:
    with Sandbox(preload=()) as sandbox:
        sandbox.warm_up()
        yield sandbox


@pytest.fixture
def nothing_left(sandbox: Sandbox) -> Iterator[None]:
    """After the test the sandbox has its own processes and no other."""
    before = {process.pid for process in alive_below(os.getpid())}
    yield
    left = wait_until(lambda: not [process for process in alive_below(os.getpid()) if process.pid not in before])
    assert left, f"alive: {[process for process in alive_below(os.getpid()) if process.pid not in before]}"

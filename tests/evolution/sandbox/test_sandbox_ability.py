"""Where workers can be confined and where not: as an ordinary user, on old kernels, without user namespaces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from live_processes import alive_below, wait_until

from evolution.sandbox import Ability, Killed, Limits, OutOfMemory, Returned, Sandbox, SandboxUnavailable, TimedOut
from evolution.sandbox.ability import sandbox_ability

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[3]
LIMITS = Limits(seconds=10, memory_bytes=256 << 20, file_bytes=16 << 20, processes=16)

CONFINED = textwrap.dedent(
    """
    import json, os, sys, tempfile
    from pathlib import Path
    sys.path.insert(0, HERE)
    from evolution.sandbox import Limits, Sandbox
    limits = Limits(seconds=10, memory_bytes=256 << 20, file_bytes=16 << 20, processes=16)
    scratch = Path(tempfile.mkdtemp())
    said = {"uid": os.getuid()}
    with Sandbox(preload=()) as sandbox:
        calls = {
            "where": None, "connect": ["127.0.0.1", 22], "eat_memory": None, "bomb_with_forks": None,
            "capabilities": None, "descriptors": None,
        }
        for name, arguments in calls.items():
            result = sandbox.call(f"sandbox_targets:{name}", arguments, limits=limits)
            said[name] = [result.status, getattr(result, "value", getattr(result, "error", None))]
        result = sandbox.call("sandbox_targets:write_file", "kept", limits=limits, scratch=scratch)
        said["kept"] = (scratch / "kept").read_text()
        result = sandbox.call("sandbox_targets:write_file", HERE + "/intruder", limits=limits)
        said["intruder"] = [result.status, os.path.exists(HERE + "/intruder")]
        result = sandbox.call("sandbox_targets:sleep", 60, limits=Limits(seconds=0.3))
        said["sleep"] = [result.status, None]
    import shutil
    shutil.rmtree(scratch)
    print(json.dumps(said))
    """
).replace("HERE", repr(str(HERE)))


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


@pytest.mark.skipif(os.geteuid() != 0, reason="this whole run is as an ordinary user")
def test_an_ordinary_user_is_confined_as_well(needs_namespaces):
    folders = [sys.prefix, sys.base_prefix, str(ROOT)]
    done = run([sys.executable, str(HERE / "as_ordinary_user.py"), CONFINED, *folders])
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["uid"] == 65534
    assert said["where"][1]["uid"] == 65534
    assert said["where"][1]["pid"] == 2
    assert said["connect"] == ["raised", "OSError"]
    assert said["eat_memory"][0] == "out_of_memory"
    assert said["bomb_with_forks"][0] == "killed"
    assert {name: int(value, 16) for name, value in said["capabilities"][1].items()}["CapEff"] == 0
    assert said["kept"] == "was here"
    # Below /tmp the folder is a mount point in the worker's own scratch: writing there reaches nothing outside.
    assert said["intruder"] == ["returned" if str(HERE).startswith("/tmp/") else "raised", False]
    assert said["sleep"][0] == "timed_out"


def test_a_kernel_without_mount_setattr_gives_the_same_tree(needs_namespaces):
    program = textwrap.dedent(
        """
        import errno, os, sys
        from evolution.sandbox import file_system, namespaces, system_calls
        from evolution.sandbox.visible_paths import devices, visible_paths
        calls = []
        def not_known(*arguments, **options):
            calls.append(arguments)
            raise OSError(errno.ENOSYS, "not known")
        system_calls.restrict_mount = not_known
        namespaces.enter_user_namespace()
        if os.fork():
            sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
        namespaces.enter_keeper_namespaces()
        file_system.build_file_system([file_system.Bind(path) for path in visible_paths(sys.path)], devices(), 1 << 20)
        assert calls
        for folder in ("/", "/usr", "/dev", "/proc", sys.base_prefix + "/lib"):
            assert os.statvfs(folder).f_flag & os.ST_RDONLY, folder
            assert os.statvfs(folder).f_flag & os.ST_NOSUID, folder
        open("/tmp/fine", "w").close()
        """
    )
    done = run([sys.executable, "-c", program])
    assert done.returncode == 0, done.stderr


def test_without_user_namespaces_it_refuses_and_names_the_fix(needs_namespaces):
    program = textwrap.dedent(
        """
        import os
        from evolution.sandbox import Limits, Sandbox, SandboxUnavailable, namespaces, sandbox_ability
        namespaces.enter_user_namespace()  # in which no further one may be made
        if os.fork():
            raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
        ability = sandbox_ability()
        assert not ability.namespaces
        assert "user.max_user_namespaces" in ability.reason, ability.reason
        assert ability.reason.count("\\n") == 0
        try:
            Sandbox()
        except SandboxUnavailable as error:
            assert "sysctl" in str(error)
        else:
            raise SystemExit("it did not refuse")
        """
    )
    done = run([sys.executable, "-c", program])
    assert done.returncode == 0, done.stderr


def test_ability_is_one_sentence(needs_namespaces):
    ability = sandbox_ability()
    assert isinstance(ability.bubblewrap, bool)
    assert ability.reason.endswith(".")
    assert sandbox_ability() is ability


@pytest.fixture
def bare(monkeypatch):
    """A sandbox on a machine that cannot confine, where its user allowed that."""
    monkeypatch.setattr("evolution.sandbox.supervisor.sandbox_ability", lambda: Ability(False, False, "Not here."))
    with pytest.raises(SandboxUnavailable, match=r"Not here\."):
        Sandbox()
    with Sandbox(allow_unsandboxed=True, preload=()) as sandbox:
        sandbox.warm_up()
        yield sandbox


def test_unsandboxed_workers_keep_their_limits(bare, tmp_path):
    assert not bare.confined
    where = bare.call("sandbox_targets:where", None, limits=LIMITS)
    assert isinstance(where, Returned)
    assert not Path(where.value["cwd"]).exists()  # its private folder is gone
    assert isinstance(bare.call("sandbox_targets:eat_memory", None, limits=LIMITS), OutOfMemory)
    assert isinstance(bare.call("sandbox_targets:spin", None, limits=Limits(seconds=0.3)), TimedOut)
    assert isinstance(bare.call("sandbox_targets:bomb_with_forks", None, limits=LIMITS), Killed)
    assert isinstance(bare.call("sandbox_targets:fill_disk", str(tmp_path), limits=LIMITS, scratch=tmp_path), Killed)
    capabilities = bare.call("sandbox_targets:capabilities", None, limits=LIMITS).value
    assert int(capabilities["CapEff"], 16) == 0


def test_unsandboxed_workers_leave_no_children(bare, tmp_path):
    before = len(alive_below(os.getpid()))
    result = bare.call("sandbox_targets:leave_children_behind", str(tmp_path), limits=LIMITS, scratch=tmp_path)
    assert isinstance(result, Returned)
    assert wait_until(lambda: len(alive_below(os.getpid())) == before)
    assert list(tmp_path.iterdir()) == []

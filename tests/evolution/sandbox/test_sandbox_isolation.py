"""What a worker can reach: nothing of the machine but what it was given."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from evolution.sandbox import Limits, Raised, Returned, Sandbox

LIMITS = Limits(seconds=10, memory_bytes=256 << 20, file_bytes=16 << 20, processes=16)


def value_of(sandbox: Sandbox, name: str, arguments: object = None, **more: object) -> object:
    result = sandbox.call(f"sandbox_targets:{name}", arguments, limits=LIMITS, **more)
    assert isinstance(result, Returned), (result, result.output)
    return result.value


def test_no_network_not_even_loopback(sandbox):
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = sandbox.call("sandbox_targets:connect", list(server.getsockname()), limits=LIMITS)
        assert isinstance(result, Raised)
        assert result.error == "OSError"
        assert "unreachable" in result.detail
    assert value_of(sandbox, "interfaces") == ["lo"]
    result = sandbox.call("sandbox_targets:resolve", "example.org", limits=LIMITS)
    assert isinstance(result, Raised)


def test_no_abstract_socket_of_the_machine(sandbox):
    name = f"evoscale-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0" + name)
        server.listen()
        result = sandbox.call("sandbox_targets:connect_to_abstract_socket", name, limits=LIMITS)
    assert isinstance(result, Raised)
    assert result.error == "ConnectionRefusedError"


def test_the_code_and_the_system_are_read_only(sandbox):
    import evolution.sandbox

    own = Path(evolution.sandbox.__file__).parent
    site_packages = Path(pytest.__file__).parent
    for folder in (own, site_packages, Path(sys.base_prefix), Path("/usr/lib"), Path("/"), Path("/dev"), Path("/etc")):
        result = sandbox.call("sandbox_targets:write_file", str(folder / "intruder.py"), limits=LIMITS)
        assert isinstance(result, Raised), folder
        assert result.error == "OSError", result
        assert "Read-only" in result.detail
        assert not (folder / "intruder.py").exists()


def test_nothing_else_of_the_machine_exists(sandbox, tmp_path):
    ledger = tmp_path / "ledger.sqlite"
    ledger.write_text("other runs")
    root = Path(__file__).parents[3]
    hidden = [ledger, tmp_path, "/etc/shadow", "/var/log", "/run/docker.sock", root / ".git", root / "pyproject.toml"]
    assert not any(value_of(sandbox, "exists", [str(path) for path in hidden]).values())
    home = [
        str(Path.home() / name) for name in (".ssh", ".bashrc", ".aws", ".netrc", ".gitconfig", ".cache", ".config")
    ]
    assert not any(value_of(sandbox, "exists", home).values())


def test_readable_paths_are_readable_and_no_more(sandbox, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "tokens.bin").write_text("tokens")
    (tmp_path / "beside").write_text("hidden")
    tokens = str(corpus / "tokens.bin")
    assert value_of(sandbox, "read_file", tokens, readable=[corpus]) == "tokens"
    assert value_of(sandbox, "read_file", tokens, readable=[corpus / "tokens.bin"]) == "tokens"
    assert value_of(sandbox, "delete", [tokens], readable=[corpus]) == {tokens: "OSError"}
    assert (corpus / "tokens.bin").exists()
    found = value_of(sandbox, "exists", [tokens, str(tmp_path / "beside")], readable=[corpus])
    assert found == {tokens: True, str(tmp_path / "beside"): False}


def test_links_to_readable_paths_lead_there(sandbox, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("through a link")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    path = str(tmp_path / "link" / "file")
    assert value_of(sandbox, "read_file", path, readable=[tmp_path / "link"]) == "through a link"


def test_a_scratch_folder_persists_and_is_the_working_folder(sandbox, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    assert value_of(sandbox, "write_file", "checkpoint", scratch=run) == "written"
    assert (run / "checkpoint").read_text() == "was here"
    assert (run / "checkpoint").stat().st_uid == os.getuid()
    assert value_of(sandbox, "read_file", str(run / "checkpoint"), scratch=run) == "was here"
    where = value_of(sandbox, "where", scratch=run)
    assert where["cwd"] == str(run)
    assert where["home"] == "/tmp"


def test_scratch_within_readable_and_readable_within_scratch(sandbox, tmp_path):
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").write_text("kept")
    value_of(sandbox, "write_file", str(inner / "new"), readable=[outer], scratch=inner)
    result = sandbox.call(
        "sandbox_targets:write_file", str(outer / "new"), limits=LIMITS, readable=[outer], scratch=inner
    )
    assert isinstance(result, Raised)
    value_of(sandbox, "write_file", str(outer / "new"), readable=[inner], scratch=outer)
    outcome = value_of(sandbox, "delete", [str(inner / "file")], readable=[inner], scratch=outer)
    assert outcome == {str(inner / "file"): "OSError"}
    assert (inner / "file").read_text() == "kept"


def test_private_scratch_dies_with_its_worker(sandbox):
    assert value_of(sandbox, "write_file", "/tmp/left") == "written"
    assert value_of(sandbox, "exists", ["/tmp/left"]) == {"/tmp/left": False}
    assert not Path("/tmp/left").exists()


def test_traps_left_in_scratch_are_removed(sandbox, tmp_path):
    assert value_of(sandbox, "leave_traps", str(tmp_path), scratch=tmp_path) == "left"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["closed", "plain"]
    assert stat.S_IMODE((tmp_path / "plain").stat().st_mode) == 0o755
    assert (tmp_path / "plain").read_text() == "kept"


def test_the_environment_holds_no_secret(monkeypatch, needs_namespaces):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setenv("MY_HARMLESS_NAME", "very-secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with Sandbox(preload=()) as sandbox:
        seen = value_of(sandbox, "environment")
        more = value_of(sandbox, "environment", environment={"CUDA_VISIBLE_DEVICES": "1"})
    assert "very-secret" not in str(seen)
    assert not {"OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_HARMLESS_NAME"} & set(seen["os"])
    expected = {
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CUDA_VISIBLE_DEVICES": "3",
    }
    assert {name: seen["os"][name] for name in expected} == expected
    assert more["os"]["CUDA_VISIBLE_DEVICES"] == "1"


def test_no_descriptor_is_inherited(sandbox):
    found = value_of(sandbox, "descriptors")
    assert set(found) <= {"0", "1", "2", "3", "4"}  # 4: the listing itself
    assert found["0"] == "/dev/null"
    assert all(found[name].startswith("pipe:") for name in ("1", "2", "3"))


def test_only_its_own_processes_are_seen(sandbox):
    assert set(value_of(sandbox, "processes")) == {"1", "2"}


def test_the_keeper_cannot_be_reached(sandbox):
    outcome = value_of(sandbox, "attack_the_keeper")
    assert set(outcome.values()) == {"PermissionError"}


def test_calls_that_reach_past_the_namespaces_are_refused(sandbox):
    outcome = value_of(sandbox, "refused_calls")
    assert outcome.pop("setuid") in (errno.EPERM, errno.EINVAL)
    assert set(outcome.values()) == {errno.EPERM}, outcome


def test_no_privilege_is_left(sandbox):
    found = value_of(sandbox, "capabilities")
    sets = [name for name in found if name.startswith("Cap")]
    assert len(sets) == 5
    assert {int(found[name], 16) for name in sets} == {0}
    assert found["NoNewPrivs"] == "1"
    assert found["Seccomp"] == "2"


def test_kernel_settings_cannot_be_written(sandbox):
    paths = ["/proc/sys/kernel/core_pattern", "/proc/self/oom_score_adj", "/proc/sys/vm/swappiness"]
    outcome = value_of(sandbox, "kernel_settings", paths)
    assert "written" not in outcome.values()


def test_no_bytecode_is_written(sandbox):
    assert value_of(sandbox, "write_bytecode") == {"value": 1, "files": ["fresh_module.py"]}


def test_global_randomness_starts_alike_in_every_worker(sandbox):
    assert value_of(sandbox, "random_numbers") == value_of(sandbox, "random_numbers")

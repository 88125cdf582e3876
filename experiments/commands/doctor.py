"""`evoscale doctor`: what is missing, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row: what was looked at, what was found, whether it will do, and the fix if not."""

    name: str
    found: str
    fine: bool
    fix: str = ""


def doctor(
    ledger: Annotated[Path | None, typer.Option(help="Also check this ledger file or run folder.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Check this machine: versions, devices, isolation, cache, disk, and a ledger's integrity."""
    checks: list[Callable[[], Finding]] = [
        _python,
        _packages,
        _devices,
        _sandbox,
        _cache,
        _disk,
        _endpoint,
        _local_model,
    ]
    findings = [check() for check in checks]
    if ledger is not None:
        findings.append(_ledger(ledger))
    if json_output:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            print(f"{'ok  ' if finding.fine else 'FAIL'}  {finding.name:<{width}}  {finding.found}")
            if not finding.fine:
                print(f"      {'':<{width}}  fix: {finding.fix}")
    raise typer.Exit(0 if all(finding.fine for finding in findings) else 1)


def _python() -> Finding:
    version = sys.version.split()[0]
    return Finding(
        name="python", found=version, fine=sys.version_info >= (3, 11), fix="make clean && make PYTHON=python3.11 test"
    )


def _packages() -> Finding:
    names = ("torch", "openevolve", "openai", "tokenizers", "statsmodels", "libcst")
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "missing"
    missing = [name for name, version in versions.items() if version == "missing"]
    return Finding(
        name="packages",
        found=", ".join(f"{name} {version}" for name, version in versions.items()),
        fine=not missing,
        fix=f"pip install -c constraints.txt {' '.join(missing)}",
    )


def _devices() -> Finding:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding(name="devices", found=f"{cores} cores; {', '.join(gpus) or 'no GPU'}", fine=True)


def _sandbox() -> Finding:
    from evolution.sandbox import sandbox_ability

    ability = sandbox_ability()
    return Finding(
        name="sandbox",
        found=ability.reason,
        fine=ability.namespaces or ability.bubblewrap,
        fix="apt-get install bubblewrap, or allow user namespaces: sysctl kernel.unprivileged_userns_clone=1",
    )


def _cache() -> Finding:
    from data.corpus import default_cache_dir

    folder = default_cache_dir()
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    return Finding(
        name="cache",
        found=str(folder),
        fine=os.access(parent, os.W_OK),
        fix="export EVOSCALE_CACHE=/a/folder/you/may/write",
    )


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 1024**3
    return Finding(name="disk", found=f"{free:.1f} GiB free here", fine=free >= 1, fix="free at least 1 GiB")


def _endpoint() -> Finding:
    base = os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE")
    model = os.environ.get("OPENAI_MODEL")
    key = "a key is set" if os.environ.get("OPENAI_API_KEY") else "no key is set"
    if not base and not model:
        return Finding(name="endpoint", found=f"none configured ({key}); the operator catalogue proposes", fine=True)
    return Finding(
        name="endpoint",
        found=f"{model or 'no model'} at {base or 'the default address'} ({key})",
        fine=bool(model),
        fix="export OPENAI_MODEL=name-of-a-model, or give --model",
    )


def _local_model() -> Finding:
    from evolution.proposer_config import EMBEDDED
    from evolution.proposers.endpoint import EndpointError
    from evolution.proposers.local_model import find_model

    try:
        file = find_model(EMBEDDED)
    except EndpointError as error:
        return Finding(name="local model", found=f"optional: {error}", fine=True)
    return Finding(name="local model", found=f"{file.name}, for --llm embedded", fine=True)


def _ledger(path: Path) -> Finding:
    from evolution.ledger import Ledger, LedgerError
    from evolution.session import LEDGER_NAME

    file = path / LEDGER_NAME if path.is_dir() else path
    try:
        with Ledger.open(file, read_only=True) as ledger:
            problems = ledger.integrity()
            found = f"{file}: {ledger.last_seq()} events, {problems[0] if problems else 'sound'}"
    except LedgerError as error:
        return Finding(name="ledger", found=str(error), fine=False, fix="restore the file from a copy")
    return Finding(name="ledger", found=found, fine=not problems, fix="restore the file from a copy")

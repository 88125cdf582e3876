"""Name to architecture: the presets that come with evoscale, one YAML file each."""

from __future__ import annotations

import difflib
from pathlib import Path

from frameworks.architecture.document import ArchitectureError, load_architecture
from frameworks.architecture.schema import Architecture

_FOLDER = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """The names of all presets, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def preset(name: str) -> Architecture:
    """The preset called `name`.

    Raises:
        ArchitectureError: there is none; the message lists near matches and all names.
    """
    names = preset_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=2, cutoff=0.4)
        hint = f"; did you mean {' or '.join(repr(match) for match in near)}?" if near else "."
        raise ArchitectureError(f"unknown preset {name!r}{hint} Known: {', '.join(names)}")
    return load_architecture(_FOLDER / f"{name}.yaml")


def find_architecture(name_or_path: str) -> Architecture:
    """A preset by its name, or the architecture in a YAML file.

    Raises:
        ArchitectureError: neither a preset nor a usable file.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1 or path.exists():
        return load_architecture(path)
    return preset(name_or_path)

"""Architecture files: YAML to `Architecture` and back, its identity, and its JSON schema.

Every mistake is told with its place, the value seen, what is allowed and the nearest name. The identity
ignores names and the order of keys: two files that build the same model and train it alike are one candidate.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import types
import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from frameworks.architecture.schema import Architecture
from frameworks.architecture.wiring import EMBEDDING

_LONGEST = 1_000_000


class ArchitectureError(ValueError):
    """An architecture cannot be used; the message names the file, the key, the value and what is allowed."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key given twice is an error, and aliases (which can grow without bound) are too."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "an alias is not allowed", None)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def load_architecture(path: Path) -> Architecture:
    """The architecture in a YAML file.

    Raises:
        ArchitectureError: the file cannot be read, or is not a legal architecture; one line for each mistake.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ArchitectureError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ArchitectureError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    return parse_architecture(text, source=str(path))


def parse_architecture(text: str, source: str = "architecture") -> Architecture:
    """The architecture that a YAML text describes; `source` is what messages call it.

    Raises:
        ArchitectureError: as `load_architecture`.
    """
    if len(text) > _LONGEST:
        raise ArchitectureError(f"{source}: {len(text):,} characters; an architecture has at most {_LONGEST:,}")
    try:
        tree = yaml.load(text, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ArchitectureError(f"{source}: not valid YAML: {' '.join(str(error).split())[:400]}") from None
    if not isinstance(tree, dict):
        raise ArchitectureError(f"{source}: expected the keys name, arch and train, got {type(tree).__name__}")
    return architecture_from(tree, source)


def architecture_from(tree: dict[str, Any], source: str = "architecture") -> Architecture:
    """The architecture in a plain tree of dicts, lists and values.

    Raises:
        ArchitectureError: it is not legal.
    """
    try:
        return Architecture.model_validate(tree)
    except ValidationError as error:
        raise ArchitectureError("\n".join(_explain(error, source))) from None


def tree_of(architecture: Architecture) -> dict[str, Any]:
    """The architecture as plain JSON."""
    return architecture.model_dump(mode="json")


def to_yaml(architecture: Architecture) -> str:
    """The architecture as YAML, every field written out; `parse_architecture` reads it back unchanged."""
    return yaml.safe_dump(tree_of(architecture), sort_keys=False, width=110)


def identity(architecture: Architecture) -> str:
    """sha256 of what the file means, in hex: names of files, modules and stages do not count."""
    tree = tree_of(architecture)
    arch = tree["arch"]
    stages = {EMBEDDING: EMBEDDING} | {stage["name"]: f"s{i}" for i, stage in enumerate(arch["pipeline"])}
    pipeline = []
    for index, stage in enumerate(arch["pipeline"]):
        module = arch["modules"][stage["module"]]
        if module.get("cond") is not None:
            module = module | {"cond": module["cond"] | {"source": stages[module["cond"]["source"]]}}
        before = EMBEDDING if index == 0 else arch["pipeline"][index - 1]["name"]
        given = [before] if stage["inputs"] is None else stage["inputs"]
        named = {key: stages[stage[key]] if stage[key] else None for key in ("kv_from", "mem_from")}
        inputs = sorted(stages[name] for name in given)
        pipeline.append({"module": module, "inputs": inputs, "mode": stage["mode"], "repeat": stage["repeat"]} | named)
    meaning = {
        "arch": {key: arch[key] for key in ("d_model", "embedding", "readout")} | {"pipeline": pipeline},
        "train": tree["train"],
        "version": 1,
    }
    return hashlib.sha256(json.dumps(meaning, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def json_schema() -> dict[str, Any]:
    """The JSON schema of the DSL, for editors and for proposers."""
    return Architecture.model_json_schema()


def _explain(error: ValidationError, source: str) -> list[str]:
    lines = []
    for problem in error.errors():
        place = _place(problem["loc"])
        if problem["type"] == "too_short" and len(problem["input"]) >= problem["ctx"]["min_length"]:
            continue  # its members failed, which is told by itself
        if problem["type"] == "extra_forbidden":
            known = _known_fields(problem["loc"][:-1])
            lines.append(f"{source}: unknown key {place!r}{_near(str(problem['loc'][-1]), known)}")
        elif problem["type"] == "union_tag_invalid":
            allowed = [tag.strip().strip("'") for tag in problem["ctx"]["expected_tags"].split(",")]
            seen = problem["ctx"]["tag"]
            lines.append(f"{source}: {place}: unknown kind {seen!r}{_near(str(seen), allowed)}")
        elif problem["type"] == "union_tag_not_found":
            lines.append(f"{source}: {place}: has no kind; give one, such as kind: ...")
        elif problem["type"] == "missing":
            lines.append(f"{source}: {place} is required")
        elif problem["type"] == "literal_error":
            allowed = [part.strip("' ") for part in problem["ctx"]["expected"].replace(" or ", ", ").split(",")]
            lines.append(
                f"{source}: {place}: {problem['input']!r} is not allowed{_near(str(problem['input']), allowed)}"
            )
        else:
            message = problem["msg"].removeprefix("Value error, ")
            shown = "" if problem["type"] == "value_error" else f" (got {str(problem.get('input'))[:80]!r})"
            lines.append(f"{source}: {place or 'architecture'}: {message}{shown}")
    return lines


def _place(location: tuple[int | str, ...]) -> str:
    """A location as a reader writes it: the tags that pydantic puts in are left out."""
    parts: list[str] = []
    for field, annotation, is_tag in _walk(location):
        del annotation
        if not is_tag:
            parts.append(str(field))
    return ".".join(parts)


def _known_fields(location: tuple[int | str, ...]) -> list[str]:
    current: Any = Architecture
    for _, annotation, _ in _walk(location):
        current = annotation
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _walk(location: tuple[int | str, ...]) -> list[tuple[int | str, Any, bool]]:
    """Each part of a location with the type found there, and whether it is the tag of a union."""
    current: Any = Architecture
    steps: list[tuple[int | str, Any, bool]] = []
    for part in location:
        members = _members(current)
        tagged = [m for m in members if isinstance(m, type) and issubclass(m, BaseModel) and _tag(m) == part]
        if tagged and len(members) > 1:
            current = tagged[0]
            steps.append((part, current, True))
            continue
        current = next((found for found in (_below(m, part) for m in members) if found is not None), None)
        steps.append((part, current, False))
    return steps


def _members(annotation: Any) -> list[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [m for argument in typing.get_args(annotation) for m in _members(argument) if m is not type(None)]
    return [annotation]


def _below(member: Any, part: int | str) -> Any:
    if isinstance(member, type) and issubclass(member, BaseModel):
        field = member.model_fields.get(str(part))
        return None if field is None else field.annotation
    arguments = typing.get_args(member)
    if typing.get_origin(member) is dict and len(arguments) == 2:
        return arguments[1]
    if typing.get_origin(member) is tuple and arguments:
        return arguments[0]
    return None


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return None if field is None else field.default


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return (f"; did you mean {near[0]!r}?" if near else ".") + (f" Known here: {', '.join(known)}" if known else "")

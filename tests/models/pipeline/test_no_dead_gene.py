"""No dead gene: every field of the DSL and every mutation changes the built model on some preset.

The fields are read from the schema itself, so that a new field without a builder fails here.
"""

from __future__ import annotations

import copy
import typing
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from data.keyed_random import numpy_generator
from frameworks.architecture.document import ArchitectureError, architecture_from, tree_of
from frameworks.architecture.preset import preset, preset_names
from frameworks.architecture.schema import Architecture
from frameworks.architecture.variation import MUTATIONS, apply_mutation, crossover
from models.pipeline.fingerprint import fingerprint

NAMES = {("Architecture", "name"), ("Stage", "name"), ("Stage", "module")}
"""Labels: what they lead to is alive, they are not."""


@pytest.fixture(scope="module")
def prints() -> dict[str, str]:
    return {name: fingerprint(preset(name)) for name in preset_names()}


def nodes(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every kind of node that an annotation leads to."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from nodes(argument)


def all_fields() -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = {}
    waiting, seen = [Architecture], set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        for name, field in node.model_fields.items():
            found[node.__name__, name] = field.annotation
            waiting += list(nodes(field.annotation))
    return {key: value for key, value in found.items() if key[1] != "kind" and key not in NAMES}


def literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is typing.Literal:
        return list(get_args(annotation))
    return [value for argument in get_args(annotation) for value in literals(argument)]


def values(present: Any, annotation: Any) -> list[Any]:
    """Other values that a field may take: numbers moved, literals exchanged, nodes by each of their kinds."""
    options: list[Any] = [value for value in literals(annotation) if value != present]
    if isinstance(present, bool):
        options.append(not present)
    elif isinstance(present, int):
        options += [present * 2, present + 1, max(1, present // 2), present - 1, 24]
    elif isinstance(present, float):
        options += [present * 2, present / 2, 0.5]
    elif present is None:
        options += [2, 8, 16, 0.5, 5.0, *({"kind": k.model_fields["kind"].default} if "kind" in k.model_fields else {}
                                          for k in nodes(annotation))]  # fmt: skip
        options += [{"loops": 2}, {"top_k": 1}, {"stride": 4}]
    elif isinstance(present, list) and literals(annotation):
        options += [[value] for value in literals(annotation)]
    if isinstance(present, dict) or present is None or (isinstance(present, list) and not literals(annotation)):
        options += [None, [], [{"kind": "local", "window": 4}]]
    return [option for option in options if option != present]


def places(node: BaseModel, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str, str, Any]]:
    """Every field of a tree: path, class, field name, annotation."""
    for name, field in type(node).model_fields.items():
        value = getattr(node, name)
        yield (*path, name), type(node).__name__, name, field.annotation
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, tuple) else ()
        for key, child in [(None, value), *children]:
            if isinstance(child, BaseModel):
                yield from places(child, (*path, name) if key is None else (*path, name, key))


# Where no preset has a field, the preset and change that bring it in, as (preset, path, value).
BROUGHT_IN: list[tuple[str, str, Any]] = [
    ("llama_like", "arch.modules.trunk.mix_unit.mixer.pos", {"kind": "xpos"}),
    ("llama_like", "arch.modules.trunk.mix_unit.mixer.pos", {"kind": "relbias"}),
    ("llama_like", "arch.modules.trunk.mix_unit.mixer.pos.scaling", {"kind": "linear"}),
    ("llama_like", "arch.modules.trunk.mix_unit.mixer.kv", {"kind": "ring", "window": 16}),
    ("llama_like", "arch.modules.trunk.mix_unit.mixer.kv", {"kind": "latent"}),
    ("llama_like", "arch.modules.trunk.mix_unit.mixer.stencils", [{"kind": "local", "window": 16}]),
    ("llama_like", "arch.modules.trunk.mix_unit.mixer.stencils", [{"kind": "dilated"}]),
    ("llama_like", "arch.modules.trunk.mix_unit.mixer.stencils", [{"kind": "block", "block": 16}]),
    ("llama_like", "arch.modules.trunk.mix_unit.mixer.stencils", [{"kind": "ring", "block": 16}]),
    ("llama_like", "arch.modules.trunk.depth_router", {"top_k": 1}),
    ("llama_like", "arch.embedding.pos", {"kind": "sinusoidal"}),
    # An encoder that reads another: the first of the two may be causal as well.
    (
        "free_transformer",
        "arch.pipeline",
        [
            {"name": "lower", "module": "lower"},
            {"name": "first", "module": "encoder", "mode": "encoder", "inputs": [], "mem_from": "lower"},
            {"name": "encoder", "module": "encoder", "mode": "encoder", "inputs": ["first"], "mem_from": "lower"},
            {"name": "latent", "module": "latent", "inputs": ["encoder"]},
            {"name": "upper", "module": "upper", "inputs": ["lower"]},
        ],
    ),
]


def subjects() -> Iterator[Architecture]:
    yield from (preset(name) for name in preset_names())
    for name, place, value in BROUGHT_IN:
        tree = copy.deepcopy(tree_of(preset(name)))
        put(tree, place.split("."), value)
        yield architecture_from(tree)


def put(tree: Any, path: Any, value: Any) -> None:
    *parents, last = path
    for part in parents:
        tree = tree[part]
    tree[last] = value


def wiring_values(subject: Architecture, path: tuple[Any, ...], field: str) -> list[Any]:
    """Names of stages, for the fields that hold them."""
    if field not in ("inputs", "kv_from", "mem_from", "source"):
        return []
    names = [stage.name for stage in subject.arch.pipeline]
    return [["embedding"], *([name] for name in names)] if field == "inputs" else [None, *names]


@pytest.mark.slow
def test_every_field_is_alive() -> None:
    waiting = set(all_fields())
    for subject in subjects():
        base = None
        for path, owner, field, annotation in places(subject):
            if (owner, field) not in waiting:
                continue
            tree = tree_of(subject)
            present: Any = tree
            for part in path:
                present = present[part]
            for value in [*values(present, annotation), *wiring_values(subject, path, field)]:
                other = copy.deepcopy(tree)
                put(other, path, value)
                try:
                    child = architecture_from(other)
                except ArchitectureError:
                    continue
                base = base or fingerprint(subject)
                if fingerprint(child) != base:
                    waiting.discard((owner, field))
                    break
    containers = {("Architecture", "arch"), ("Architecture", "train"), ("Arch", "modules"), ("Arch", "pipeline")}
    containers |= {("Arch", "embedding"), ("Arch", "readout"), ("ParallelUnit", "mixers"), ("RoutedUnit", "mixers")}
    containers |= {
        (owner, field)
        for owner, field in waiting
        if field in ("norm", "residual", "router", "mix_unit", "mixer", "kv", "ffn")
    }
    assert waiting <= containers, f"dead: {sorted(waiting - containers)}"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_every_mutation_is_alive(mutation: Any, prints: dict[str, str]) -> None:
    for name in preset_names():
        for draw in range(8):
            child = apply_mutation(preset(name), mutation, numpy_generator("alive", mutation.name, name, draw))
            if child is not None and fingerprint(child) != prints[name]:
                assert mutation.description
                assert mutation.needs
                return
    pytest.fail(f"{mutation.name} changes no preset")


def test_there_are_enough_mutations_and_names_are_unique() -> None:
    assert len(MUTATIONS) >= 22
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)


def test_a_crossover_takes_from_both(prints: dict[str, str]) -> None:
    names = preset_names()
    made = 0
    for number, first in enumerate(names):
        second = names[(number + 3) % len(names)]
        child = crossover(preset(first), preset(second), numpy_generator("cross", number))
        made += child is not None and fingerprint(child.architecture) != prints[first]
    assert made >= len(names) - 2


def test_a_change_without_effect_has_its_parents_fingerprint(prints: dict[str, str]) -> None:
    tree = tree_of(preset("gen_8_variant_9"))
    tree["name"] = "renamed"
    assert fingerprint(architecture_from(tree)) == prints["gen_8_variant_9"]

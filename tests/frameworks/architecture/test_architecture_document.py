"""Architecture files: read, written back, told apart, and every mistake told with its place and the nearest name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from frameworks.architecture.difference import differences
from frameworks.architecture.document import (
    ArchitectureError,
    architecture_from,
    identity,
    json_schema,
    load_architecture,
    parse_architecture,
    to_yaml,
    tree_of,
)
from frameworks.architecture.preset import find_architecture, preset, preset_names

Tree = dict[str, Any]


def changed(name: str, *places: tuple[str, Any]) -> Tree:
    tree = copy.deepcopy(tree_of(preset(name)))
    for place, value in places:
        *parents, last = place.split(".")
        node: Any = tree
        for part in parents:
            node = node[int(part)] if part.isdigit() else node[part]
        node[int(last) if last.isdigit() else last] = value
    return tree


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_read_written_and_fits_the_schema(name: str) -> None:
    architecture = preset(name)
    assert architecture.name == name
    assert parse_architecture(to_yaml(architecture)) == architecture
    jsonschema.validate(tree_of(architecture), json_schema())


TRUNK = "arch.modules.trunk"
MISTAKES = [
    ("llama_like", [(f"{TRUNK}.mix_unit.mixer.haeds", 4)], ["unknown key", "mixer.haeds", "did you mean 'heads'"]),
    ("llama_like", [("arch.d_modl", 4)], ["unknown key 'arch.d_modl'", "'d_model'"]),
    ("llama_like", [(f"{TRUNK}.mix_unit.mixer.kind", "atention")], ["unknown kind 'atention'", "'attention'"]),
    ("llama_like", [(f"{TRUNK}.ffn.activation", "swigl")], ["'swigl' is not allowed", "'swiglu'"]),
    ("llama_like", [(f"{TRUNK}.mix_unit.mixer.groups", 3)], ["groups=3 does not divide heads=4"]),
    ("llama_like", [(f"{TRUNK}.mix_unit.mixer.pos.dims", 18)], ["pos.dims=18 exceeds head_dim=16"]),
    ("llama_like", [("train.lr", float("nan"))], ["train.lr", "finite"]),
    ("llama_like", [("arch.d_model", 0)], ["arch.d_model", "got '0'"]),
    ("llama_like", [("arch.pipeline.0.module", "trnk")], ["unknown module 'trnk'", "'trunk'"]),
    ("llama_like", [("arch.pipeline.0.inputs", ["embeding"])], ["no earlier stage 'embeding'", "'embedding'"]),
    ("free_transformer", [("arch.pipeline.3.inputs", ["lower", "encoder"])], ["encoder", "sees the future"]),
    ("free_transformer", [("arch.modules.upper.cond.source", "encoder")], ["sees the future"]),
    ("free_transformer", [("arch.pipeline.2.inputs", ["lower"])], ["reads encoder stages only"]),
    ("free_transformer", [("arch.modules.latent.bits", 16)], ["2^16 vectors"]),
    ("llama_like", [("arch.modules.spare", {"kind": "transformer"})], ["'spare' is used by no stage"]),
]


@pytest.mark.parametrize(("name", "places", "parts"), MISTAKES, ids=lambda v: str(v)[:40])
def test_a_mistake_is_told(name: str, places: list[tuple[str, Any]], parts: list[str]) -> None:
    with pytest.raises(ArchitectureError) as raised:
        architecture_from(changed(name, *places), "file.yaml")
    message = str(raised.value)
    assert message.startswith("file.yaml: ")
    assert len(message.splitlines()) == 1
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "expected the keys"),
        ("[1, 2]", "got list"),
        ("name: a\nname: b", "given twice"),
        ("a: &x [1]\nb: *x", "alias"),
        ("{", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("name: x", "arch is required"),
    ],
)
def test_text_that_is_no_architecture(text: str, part: str) -> None:
    with pytest.raises(ArchitectureError, match=part):
        parse_architecture(text)


def test_a_file_that_is_not_there_and_an_unknown_preset(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match="no such file"):
        load_architecture(tmp_path / "absent.yaml")
    with pytest.raises(ArchitectureError, match="did you mean 'llama_like'"):
        find_architecture("lama_like")


def test_the_identity_ignores_names_and_sees_meaning() -> None:
    base = preset("llama_like")
    renamed = changed("llama_like", ("name", "other"), ("arch.pipeline.0.name", "body"))
    renamed["arch"]["modules"] = {"body": renamed["arch"]["modules"]["trunk"]}
    renamed["arch"]["pipeline"][0]["module"] = "body"
    renamed["arch"]["pipeline"][0]["inputs"] = ["embedding"]
    assert identity(architecture_from(renamed)) == identity(base)
    assert identity(architecture_from(changed("llama_like", (f"{TRUNK}.n_layers", 3)))) != identity(base)


def test_differences_are_told_in_words() -> None:
    after = architecture_from(changed("llama_like", (f"{TRUNK}.n_layers", 3), ("arch.readout.softcap", 5.0)))
    lines = differences(preset("llama_like"), after)
    assert lines == ["arch.readout.softcap: none became 5.0", "arch.modules.trunk.n_layers: 2 became 3"]

"""Plain merges from a recipe to a folder: values, memory of the recipe, and every refusal before weights are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from evolution.merging import checkpoint_writer
from evolution.merging.checkpoint import Checkpoint, FileTensor
from evolution.merging.checkpoint_writer import CheckpointWriter
from evolution.merging.merge_plan import mask_generator, merge_to
from evolution.merging.recipe import load_recipe, parse_recipe
from experiments.cli import app, is_users
from frameworks.merging.merge_error import MergeError
from frameworks.merging.merge_tensor import merge_tensor
from frameworks.merging.method import methods


@pytest.fixture
def models(tmp_path: Path, write_model: Callable[..., Path]) -> dict[str, str]:
    return {name: str(write_model(tmp_path / name, seed)) for seed, name in enumerate(("base", "one", "two", "three"))}


def recipe_of(models: dict[str, str], method: str, **more: object) -> dict[str, object]:
    names = {"slerp": ["one"], "nuslerp": ["one", "two"], "passthrough": ["one"]}.get(method, ["one", "two", "three"])
    sections = [{"model": models[name], "parameters": {"weight": 0.5, "density": 0.5}} for name in names]
    return {"merge_method": method, "base_model": models["base"], "models": sections} | more


@pytest.mark.parametrize("method", sorted(methods()))
def test_every_method_writes_what_it_computes_in_memory(method: str, models: dict[str, str], tmp_path: Path) -> None:
    recipe = parse_recipe(recipe_of(models, method), "test")
    merge_to(recipe, tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    loaded = {path: load_file(Path(path) / "model.safetensors") for path in models.values()}
    chosen = recipe.method
    names = [section.model for section in recipe.models or []]
    if method == "slerp":
        names = [models["base"], *names]
    base = loaded[models["base"]] if chosen.needs_base or method == "nuslerp" else None
    assert list(written) == sorted(loaded[models["base"]])
    for name, tensor in written.items():
        expected = merge_tensor(
            name,
            None if base is None else base[name],
            [loaded[path][name] for path in names],
            [0.5] * len(names),
            [0.5] * len(names),
            mask_generator(0, name, tuple(names)),
            method=chosen,
            settings=recipe.settings(name, 0.0),
        )
        assert torch.equal(tensor, expected), name
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"] == 2
    assert (tmp_path / "out" / "tokenizer.json").exists()
    assert load_recipe(tmp_path / "out" / "merge_recipe.yaml") == recipe


def test_gradients_and_filters_give_each_tensor_its_value(models: dict[str, str], tmp_path: Path) -> None:
    sections = [
        {"model": models["one"], "parameters": {"weight": [0.0, 1.0]}},
        {"model": models["two"], "parameters": {"weight": [{"filter": "mlp", "value": 1.0}, {"value": [1.0, 0.0]}]}},
    ]
    recipe = parse_recipe({"merge_method": "linear", "models": sections}, "test")
    merge_to(recipe, tmp_path / "out")
    out, one, two = (load_file(Path(p) / "model.safetensors") for p in (tmp_path / "out", models["one"], models["two"]))
    for name, tensor in out.items():
        first = "layers.0" in name or "embed" in name
        expected = two[name] if first else one[name]
        if "mlp" in name and not first:
            expected = (one[name] + two[name]) / 2
        torch.testing.assert_close(tensor, expected)


def test_slices_stack_layers_anew(models: dict[str, str], tmp_path: Path) -> None:
    slices = [
        {"sources": [{"model": models["one"], "layer_range": [0, 2]}]},
        {"sources": [{"model": models["two"], "layer_range": [1, 2]}]},
    ]
    merge_to(parse_recipe({"merge_method": "passthrough", "slices": slices}, "test"), tmp_path / "out")
    out, one, two = (load_file(Path(p) / "model.safetensors") for p in (tmp_path / "out", models["one"], models["two"]))
    name = "model.layers.{}.mlp.up_proj.weight"
    assert torch.equal(out[name.format(1)], one[name.format(1)])
    assert torch.equal(out[name.format(2)], two[name.format(1)])
    assert torch.equal(out["model.embed_tokens.weight"], one["model.embed_tokens.weight"])
    assert torch.equal(out["model.norm.weight"], two["model.norm.weight"])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"] == 3


def test_slices_of_a_task_method_use_the_matching_layers_of_the_base(models: dict[str, str], tmp_path: Path) -> None:
    sources = [{"model": models[name], "layer_range": [1, 2]} for name in ("base", "one", "two")]
    content = {"merge_method": "task_arithmetic", "base_model": models["base"], "slices": [{"sources": sources}]}
    merge_to(parse_recipe(content, "test"), tmp_path / "out")
    out, base, one, two = (
        load_file(Path(p) / "model.safetensors")
        for p in (tmp_path / "out", models["base"], models["one"], models["two"])
    )
    old, new = "model.layers.1.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(out[new], one[old] + two[old] - base[old])


def test_the_result_is_stored_as_asked_and_in_shards(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_writer, "SHARD_BYTES", 300)
    shapes = {"a": ((10, 10), torch.bfloat16), "b": ((), torch.float32), "c": ((3,), torch.float16)}
    with CheckpointWriter(tmp_path / "out", shapes, 100) as writer:
        for name, (shape, _) in shapes.items():
            writer.write(name, [torch.arange(float(torch.Size(shape).numel()))])
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 2
    with Checkpoint(tmp_path / "out") as read:
        assert read.tensors["a"].whole().dtype == torch.bfloat16
        assert read.tensors["a"].whole().flatten()[99] == 99
        assert read.tensors["b"].whole() == 0
        assert read.tensors["c"].read(1, 3).tolist() == [1, 2]
    merge_to(parse_recipe(recipe_of(models, "ties", dtype="bfloat16"), "test"), tmp_path / "half")
    assert {tensor.dtype for tensor in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.bfloat16}


def test_a_merge_that_fails_leaves_nothing(models: dict[str, str], tmp_path: Path) -> None:
    weights = load_file(Path(models["two"]) / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, Path(models["two"]) / "model.safetensors")
    before = sorted(tmp_path.iterdir())
    for method in ("linear", "ties", "slerp_of_two"):
        content = recipe_of(models, "nuslerp" if method == "slerp_of_two" else method)
        with pytest.raises(MergeError, match=r"model\.norm\.weight.*NaN"):
            merge_to(parse_recipe(content, "test"), tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def _bad(name: str, models: dict[str, str], tmp_path: Path, write_model: Callable[..., Path]) -> dict[str, object]:
    recipe = recipe_of(models, "ties")
    sections: list[dict[str, object]] = recipe["models"]  # type: ignore[assignment]
    if name == "architecture":
        path = write_model(tmp_path / "other", 1, config={"architectures": ["GPT2LMHeadModel"]})
    elif name == "vocabulary":
        path = write_model(tmp_path / "other", 1, vocabulary=13)
    elif name == "layers":
        path = write_model(tmp_path / "other", 1, layers=3)
    elif name == "tokenizer":
        path = write_model(tmp_path / "other", 1, tokenizer="b")
    elif name == "shape":
        path = write_model(tmp_path / "other", 1, width=16, config={"hidden_size": 8})
    elif name == "integers":
        path = write_model(tmp_path / "other", 1, dtype=torch.int32)
    elif name == "no folder":
        path = tmp_path / "absent"
    elif name == "cut off":
        path = write_model(tmp_path / "other", 1)
        file = path / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-10])
    elif name == "no safetensors":
        path = tmp_path / "empty"
        path.mkdir()
    elif name == "garbage":
        path = write_model(tmp_path / "other", 1)
        (path / "model.safetensors").write_bytes(b"\xff" * 100)
    else:
        if name == "density 0":
            sections[0]["parameters"] = {"density": 0.0}
        elif name == "density 2":
            sections[0]["parameters"] = {"density": 2}
        elif name == "no base":
            del recipe["base_model"]
        elif name == "unknown key":
            recipe["merge_methd"] = "ties"
        elif name == "unknown method":
            recipe["merge_method"] = "tie"
        elif name == "both":
            recipe["slices"] = []
        elif name == "three for slerp":
            recipe["merge_method"] = "slerp"
        return recipe
    sections[1]["model"] = str(path)
    return recipe


BAD = {
    "architecture": ["architecture differs", "GPT2LMHeadModel"],
    "vocabulary": ["vocabulary differs", "12", "13"],
    "layers": ["number of layers differs", "2", "3", "slices"],
    "tokenizer": ["tokenizers", "differ", "tokenizer_source"],
    "shape": ["shape", "[12, 8]", "[12, 16]"],
    "integers": ["I32", "allowed: F64, F32, F16, BF16"],
    "no folder": ["absent", "no such folder"],
    "cut off": ["cut off or damaged"],
    "no safetensors": ["holds no .safetensors file"],
    "garbage": ["is no safetensors file"],
    "density 0": ["density", "is 0", "(0, 1]"],
    "density 2": ["density", "is 2", "(0, 1]"],
    "no base": ["ties needs a base model", "base_model"],
    "unknown key": ["unknown key 'merge_methd'", "'merge_method'"],
    "unknown method": ["unknown merge_method 'tie'", "'ties'"],
    "both": ["either 'models' or 'slices'"],
    "three for slerp": ["slerp got 4 models", "2 to 2"],
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_input_is_refused_in_a_sentence_before_weights_are_read(
    name: str, models: dict[str, str], tmp_path: Path, write_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FileTensor, start: int, stop: int) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(FileTensor, "read", refuse)
    config = tmp_path / "recipe.yaml"
    config.write_text(yaml.safe_dump(_bad(name, models, tmp_path, write_model)))
    before = sorted(tmp_path.iterdir())
    done = CliRunner().invoke(app, ["merge", str(config), "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, MergeError), done.exception
    assert is_users(done.exception)
    for part in BAD[name]:
        assert part in str(done.exception)
    assert sorted(tmp_path.iterdir()) == before


def test_the_command_merges_and_refuses_to_overwrite(models: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "recipe.yaml"
    config.write_text(yaml.safe_dump(recipe_of(models, "dare_ties")))
    done = CliRunner().invoke(app, ["merge", str(config), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.exception
    assert "merged into" in done.stdout
    again = CliRunner().invoke(app, ["merge", str(config), "--out", str(tmp_path / "out")])
    assert "exists and is not empty" in str(again.exception)
    nowhere = CliRunner().invoke(app, ["merge", str(config), "--out", str(tmp_path / "no" / "out")])
    assert "does not exist" in str(nowhere.exception)
    assert "--out is missing" in str(CliRunner().invoke(app, ["merge", str(config)]).exception)
    as_json = CliRunner().invoke(app, ["merge", str(config), "--out", str(tmp_path / "again"), "--json"])
    assert json.loads(as_json.stdout)["tensors"] == 8
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)

"""Configuration: YAML, settings, and the sentence a mistake gets."""

from pathlib import Path

import pytest

from evolution.config import ConfigError, EvolveConfig, load_config


def test_file_then_settings_then_overrides(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("framework: matrix_mixer\niterations: 3\nconfirmation: {seeds: 8}\n")
    config = load_config(path, ["confirmation.seeds=9", "corpus.source=stories"], {"iterations": 5, "seed": None})
    assert (config.framework, config.iterations, config.seed) == ("matrix_mixer", 5, 1)
    assert (config.confirmation.seeds, config.corpus.source) == (9, "stories")


def test_empty_file_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("")
    assert load_config(path, overrides={"framework": "matrix_mixer"}) == EvolveConfig(framework="matrix_mixer")


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (["iteratons=3"], ["unknown key 'iteratons'", "did you mean 'iterations'"]),
        (["confirmation.sedes=3"], ["'confirmation.sedes'", "did you mean 'seeds'"]),
        (["stages=[{size: d32, seed: 2}]"], ["'stages.0.seed'", "did you mean 'seeds'"]),
        (["population.islnds=3"], ["did you mean 'islands'"]),
        (["iterations=-1"], ["iterations", "greater than or equal to 0", "-1"]),
        (["iterations=many"], ["iterations", "integer", "'many'"]),
        (["confirmation.alpha=0.7"], ["confirmation.alpha", "0.7"]),
        (["corpus.vocab_size=7"], ["corpus.vocab_size", "260", "7"]),
        (["proposer.kind=endpoint"], ["needs a model"]),
        (["proposer.kind=oracle"], ["proposer.kind", "'catalogue' or 'endpoint'", "'oracle'"]),
        (["stages=[]"], ["stages is empty"]),
        (["stages=[{size: d32, keep: 3}]"], ["stages[0].keep"]),
        (["stages=[{size: a}, {size: b, keep: 2}, {size: c, keep: 5}]"], ["may not keep more"]),
        (["stages=[{size: a}, {size: b, keep: 2}, {size: c}]"], ["may not follow"]),
        (["population.exploration_ratio=0.9"], ["may not exceed 1"]),
        (["nonsense"], ["expected KEY=VALUE", "nonsense"]),
        (["=3"], ["expected KEY=VALUE"]),
        (["iterations=[1"], ["not YAML"]),
        (["seed=2", "seed.deep=1"], ["'seed' is not a section"]),
    ],
)
def test_a_mistake_is_told_with_key_value_and_what_is_allowed(settings: list[str], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, settings, {"framework": "matrix_mixer"})
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("content", "part"),
    [("- a\n- b\n", "expected keys and values, got list"), ("a: [1\n", "not valid YAML"), (None, "no such file")],
)
def test_unusable_files(tmp_path: Path, content: str | None, part: str) -> None:
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=part):
        load_config(path)


def test_binary_and_missing_framework(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(path)
    with pytest.raises(ConfigError, match="'framework' is required"):
        load_config(None)


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("e*/*config_*.yaml")), ids=lambda p: p.stem)
def test_shipped_study_configs_load(path: Path) -> None:
    config = load_config(path)
    assert path.stem == f"config_{config.framework}"
    assert config.iterations == 35
    assert config.ladder == "paper"


def test_demo_config_loads() -> None:
    demo = load_config(Path(__file__).parents[2] / "experiments" / "demo.yaml", overrides={"framework": "matrix_mixer"})
    assert demo.iterations >= 12
    assert demo.confirmation.seeds >= 6

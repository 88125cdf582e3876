from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from frameworks.attention.shell import AttentionShell
from frameworks.registry import framework, frameworks
from models.language_model import EMBEDDING_STD, LanguageModel, attention_class, create_language_model

SIZES = {"vocab_size": 61, "d_model": 24, "n_layers": 2, "n_heads": 3}
ALL = [(name, variant) for name in frameworks() for variant in ("standard", "evolvable")]


def _tokens(batch: int = 3, length: int = 11) -> Tensor:
    return torch.randint(61, (batch, length), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_every_framework_and_variant_predicts(name: str, variant: str) -> None:
    model = create_language_model(name, variant, **SIZES)
    logits = model(_tokens())
    assert logits.shape == (3, 11, 61)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_the_future_is_not_seen(name: str, variant: str) -> None:
    model = create_language_model(name, variant, **SIZES)
    tokens = _tokens()
    changed = tokens.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 61
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7], rtol=1e-5, atol=1e-5)
    assert (before[:, 7:] - after[:, 7:]).abs().max() > 1e-3


@pytest.mark.parametrize("name", list(frameworks()))
def test_standard_and_evolvable_agree_and_have_the_same_parameters(name: str) -> None:
    standard = create_language_model(name, "standard", seed=3, **SIZES)
    evolvable = create_language_model(name, "evolvable", seed=3, **SIZES)
    assert standard.n_parameters() == evolvable.n_parameters()
    with torch.no_grad():
        torch.testing.assert_close(standard(_tokens()), evolvable(_tokens()), rtol=1e-4, atol=1e-5)


def test_logits_are_the_hidden_features_times_the_tied_embedding() -> None:
    model = create_language_model("matrix_mixer", **SIZES)
    with torch.no_grad():
        torch.testing.assert_close(model(_tokens()), model.hidden(_tokens()) @ model.embedding.weight.T)
    assert model.n_parameters(embedding=True) - model.n_parameters() == 61 * 24


def test_embedding_is_drawn_with_its_standard_deviation() -> None:
    model = create_language_model("matrix_mixer", vocab_size=2000, d_model=32, n_layers=1, n_heads=2)
    assert abs(model.embedding.weight.std().item() - EMBEDDING_STD) < 0.005
    assert abs(model.embedding.weight.mean().item()) < 0.005


def test_same_seed_same_weights_other_seed_others() -> None:
    one, two, other = (create_language_model("matrix_mixer", seed=seed, **SIZES) for seed in (7, 7, 8))
    for (name, a), b, c in zip(one.named_parameters(), two.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert a.ndim < 2 or not torch.equal(a, c), name


class _WithMixer(AttentionShell):
    """An arm whose block has parameters of its own."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__(d_model, n_heads)
        self.mixer = nn.Linear(self.head_dim, self.head_dim)

    def mix(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.mixer(v)  # type: ignore[no-any-return]


def test_arms_share_the_weights_of_the_shell_whatever_the_block() -> None:
    reference = dict(create_language_model("matrix_mixer", seed=4, **SIZES).named_parameters())
    arm = dict(LanguageModel(_WithMixer, seed=4, **SIZES).named_parameters())
    assert set(arm) - set(reference) == {
        f"blocks.{i}.attention.mixer.{kind}" for i in (0, 1) for kind in ("weight", "bias")
    }
    for name, parameter in reference.items():
        assert torch.equal(parameter, arm[name]), name


def test_a_blocks_own_weights_are_its_own_by_seed_and_layer() -> None:
    def mixers(seed: int) -> list[Tensor]:
        model = LanguageModel(_WithMixer, seed=seed, **SIZES)
        return [parameter for name, parameter in model.named_parameters() if name.endswith("mixer.weight")]

    first, again, other = mixers(1), mixers(1), mixers(2)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].abs().max() <= 8**-0.5  # nn.Linear's own bound, not the shell's normal


def test_building_neither_reads_nor_moves_the_global_random_state() -> None:
    state = torch.get_rng_state()
    first = LanguageModel(_WithMixer, seed=1, **SIZES)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng(devices=[]):
        torch.rand(100)
        second = LanguageModel(_WithMixer, seed=1, **SIZES)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_sequences_longer_than_the_position_table_and_training_after_inference() -> None:
    model = create_language_model("matrix_mixer", vocab_size=13, d_model=8, n_layers=1, n_heads=1)
    tokens = torch.zeros(1, 300, dtype=torch.long)
    short = model(tokens[:, :20])
    with torch.inference_mode():
        model(tokens)
    torch.testing.assert_close(model(tokens)[:, :20], short, rtol=1e-5, atol=1e-5)
    model(tokens).sum().backward()
    assert model.embedding.weight.grad is not None


def test_a_program_of_ones_own() -> None:
    source = framework("matrix_mixer").pristine.replace("return q, k, v", "return q, k, 2 * v")
    own = create_language_model("matrix_mixer", "evolved", source=source, **SIZES)
    pristine = create_language_model("matrix_mixer", "evolved", **SIZES)
    assert (own(_tokens()) - pristine(_tokens())).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("matrix_mixr",), "did you mean 'matrix_mixer'"),
        (("matrix_mixer", "standrad"), "did you mean 'standard'.*evolvable"),
        (("matrix_mixer", "standard", "x = 1"), "takes no program"),
        (("matrix_mixer", "evolved", "x = 1"), "does not define the class EvolvableMatrixMixer"),
    ],
)
def test_what_is_wrong_is_said(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention_class(*arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"vocab_size": 0}, "vocab_size=0"), ({"n_layers": 0}, "n_layers=0"), ({"n_heads": 5}, "n_heads=5")],
)
def test_sizes_that_cannot_be_built(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_language_model("matrix_mixer", **{**SIZES, **changes})

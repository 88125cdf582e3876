"""The controls do what their labels say: honest ones keep every promise, cheats leak under their condition."""

from __future__ import annotations

import copy
import itertools
import re

import pytest
import torch
from torch import Tensor, nn

from frameworks.attention.controls import registry
from frameworks.attention.controls.registry import Control, ControlError, UnknownControlError, control, controls
from frameworks.program import normalise_block
from frameworks.registry import UnknownFrameworkError, framework, frameworks

REFERENCE_PARAMETERS = {(32, 2): 24_896, (48, 3): 55_776, (80, 5): 154_400}  # non-embedding, two layers
HONEST = [entry for entry in controls() if entry.kind != "cheat"]
CHEATS = controls(kind="cheat")
EVERYWHERE = pytest.mark.parametrize("entry", controls(), ids=lambda entry: entry.name)
honest = pytest.mark.parametrize("entry", HONEST, ids=lambda entry: entry.name)
cheats = pytest.mark.parametrize("entry", CHEATS, ids=lambda entry: entry.name)

_CLASSES: dict[str, type[nn.Module]] = {}


def layer(entry: Control, d_model: int, n_heads: int, seed: int = 0, trained: bool = False) -> nn.Module:
    """A seeded layer; `trained` moves the block's parameters off their start so that closed gates open."""
    if entry.name not in _CLASSES:
        _CLASSES[entry.name] = getattr(entry.program().load(), framework(entry.framework).evolvable_class)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = _CLASSES[entry.name](d_model, n_heads)
        if trained:
            with torch.no_grad():
                for parameter in built.mixer.parameters():
                    parameter.add_(torch.randn(parameter.shape) * 0.3)
    return built


def sequence(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@torch.no_grad()
def leak(built: nn.Module, length: int, *, scale: float = 1.0, cuts: tuple[int, ...] = ()) -> float:
    """Largest change of an output before a cut when everything from the cut on is replaced (float64)."""
    built = built.double()
    x = scale * sequence(2, length, built.d_model)
    before = built(x)
    largest = 0.0
    for cut in cuts or sorted({1, min(5, length - 1), length // 2, 2 * length // 3, length - 1} - {0}):
        other = x.clone()
        other[:, cut:] = scale * sequence(2, length - cut, built.d_model, seed=cut + 7)
        largest = max(largest, (built(other)[:, :cut] - before[:, :cut]).abs().max().item())
    return largest


def test_every_framework_has_a_complete_set():
    for name in frameworks():
        kinds = [entry.kind for entry in controls(name)]
        assert kinds.count("positive") >= 2
        assert kinds.count("null") >= 1
        assert kinds.count("cheat") >= 6
        assert kinds.count("honest") >= 10
    assert len(HONEST) >= 40
    assert len(CHEATS) >= 16
    assert {entry.leaks for entry in CHEATS} == set(registry.LEAKS)


def test_labels_fit_their_kind():
    expected = {"positive": {"promoted"}, "null": {"not promoted"}, "cheat": {"rejected"}}
    for entry in controls():
        assert entry.expected in expected.get(entry.kind, {"any", "not promoted"}), entry.name
        assert bool(entry.leaks) == (entry.kind == "cheat"), entry.name
        assert entry.summary.endswith("."), entry.name
        assert entry.path.name == f"{entry.name}.py"
    assert control("linear_attention").expected == "not promoted"


def test_identities_are_unique_and_none_is_the_start_block():
    identities = [entry.program().identity for entry in controls()]
    identities += [found.program().identity for found in frameworks().values()]
    assert len(set(identities)) == len(identities)


@EVERYWHERE
def test_block_is_the_file_without_label_and_shell_imports(entry):
    text = entry.path.read_text(encoding="utf-8")
    assert entry.block.strip() in text
    assert not re.search(r"^(import torch|import math|from torch)", entry.block, re.MULTILINE)
    assert entry.summary not in entry.block
    assert entry.program().block == entry.block
    assert normalise_block(entry.block)


@cheats
def test_cheats_do_not_announce_themselves(entry):
    assert not re.search(r"cheat|leak|peek|illegal|future|whisper|reject", entry.block, re.IGNORECASE)


def test_filters_and_errors():
    assert {entry.framework for entry in controls("matrix_mixer")} == {"matrix_mixer"}
    assert all(entry.kind == "null" for entry in controls(kind="null"))
    assert controls("matrix_mixer", "null") == [control("null_mixer")]
    with pytest.raises(UnknownControlError, match="did you mean 'linear_attention'"):
        control("linear_atention")
    with pytest.raises(UnknownControlError, match=r"'honest'.*Known: positive, honest, null, cheat"):
        controls(kind="honnest")
    with pytest.raises(UnknownFrameworkError, match="matrix_mixer"):
        controls("matrix_mixr")


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("One.\n\nkind: positiv\nexpected: any\n", "kind is 'positiv'; allowed: positive, honest"),
        ("One.\n\nkind: honest\n", "expected is ''; allowed: promoted"),
        ("One.\n\nkind: cheat\nexpected: rejected\n", "leaks is ''; allowed: always"),
        ("One.\n\nkind: honest\nexpected: any\npapers: x\n", "'papers: x' is not 'field: value'; fields: kind"),
    ],
)
def test_incomplete_labels_are_errors(tmp_path, monkeypatch, label, message):
    folder = tmp_path / "matrix_mixer"
    folder.mkdir()
    (folder / "odd.py").write_text(f'"""{label}"""\n\nclass Mixer:\n    pass\n')
    monkeypatch.setattr(registry, "_HERE", tmp_path)
    monkeypatch.setattr(registry, "_by_name", registry._by_name.__wrapped__)
    with pytest.raises(ControlError, match=re.escape(message)):
        controls()


def test_a_name_used_twice_is_an_error(tmp_path, monkeypatch):
    for name in ("matrix_mixer", "coefficient_dynamics"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "twin.py").write_text('"""One.\n\nkind: honest\nexpected: any\n"""\n')
    monkeypatch.setattr(registry, "_HERE", tmp_path)
    monkeypatch.setattr(registry, "_by_name", registry._by_name.__wrapped__)
    with pytest.raises(ControlError, match="two controls are called 'twin'"):
        controls()


def test_imports_the_shell_lacks_stay_in_the_block():
    source = '"""Label."""\n\nimport math\n\nimport torch\nfrom einops import rearrange\n\n\nclass A:\n    pass\n'
    assert registry._block_of(source) == "from einops import rearrange\n\n\nclass A:\n    pass\n"


@EVERYWHERE
@torch.no_grad()
def test_shapes(entry):
    for d_model, n_heads in ((32, 2), (15, 1), (15, 5)):
        built = layer(entry, d_model, n_heads)
        for length in (1, 2, 3, 63, 64, 128, 200):
            assert built(sequence(1, length, d_model, dtype=torch.float32)).shape == (1, length, d_model)


@honest
def test_honest_controls_are_causal(entry):
    for trained, mode in ((False, True), (True, False)):
        built = layer(entry, 30, 2, trained=trained).train(mode)
        for length, scale in ((2, 1.0), (64, 1.0), (101, 1.0), (40, 8.0)):
            assert leak(built, length, scale=scale) < 1e-10


@honest
def test_honest_outputs_do_not_depend_on_what_comes_after_or_beside(entry):
    built = layer(entry, 32, 2, trained=True).double()
    x = sequence(3, 150, 32)
    with torch.no_grad():
        whole = built(x)
        for length in (1, 17, 64, 149):
            torch.testing.assert_close(built(x[:, :length]), whole[:, :length], atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(built(x[1:2]), whole[1:2], atol=1e-9, rtol=1e-9)


@honest
def test_honest_controls_keep_no_state_and_draw_no_numbers(entry):
    built = layer(entry, 32, 2, trained=True)
    state = copy.deepcopy(built.state_dict())
    x = sequence(2, 70, 32, dtype=torch.float32)
    numbers = torch.random.get_rng_state()
    first = built(x)
    built(sequence(4, 33, 32, seed=5, dtype=torch.float32))
    assert torch.equal(built(x), first)
    assert torch.equal(torch.random.get_rng_state(), numbers)
    for name, value in built.state_dict().items():
        assert torch.equal(value, state[name]), name


@honest
def test_honest_parameters_stay_near_the_reference(entry):
    limit = 0.02 if entry.kind == "honest" else 0.01
    for (d_model, n_heads), reference in REFERENCE_PARAMETERS.items():
        extra = 2 * sum(parameter.numel() for parameter in layer(entry, d_model, n_heads).mixer.parameters())
        assert extra <= limit * reference


@honest
def test_gradients_are_finite_and_reach_every_parameter(entry):
    built = layer(entry, 32, 2)
    built(sequence(4, 63, 32, dtype=torch.float32)).square().sum().backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@honest
def test_honest_controls_are_finite(entry):
    built = layer(entry, 32, 2, trained=True)
    cases = ((1, 1.0), (64, 1e-4), (200, 20.0))
    for dtype, (length, scale) in itertools.product((torch.float32, torch.float64), cases):
        x = (scale * sequence(1, length, 32)).to(dtype).requires_grad_()
        y = built.to(dtype)(x)
        y.sum().backward()
        assert y.dtype == dtype
        assert torch.isfinite(y).all()
        assert torch.isfinite(x.grad).all()


@honest
def test_honest_controls_run_under_bf16_autocast(entry):
    built = layer(entry, 32, 2)
    x = sequence(2, 40, 32, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = built(x)
    y.float().square().mean().backward()
    assert torch.isfinite(y).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in built.parameters())
    reference = built(x).detach()
    assert (y.float() - reference).norm() < 0.1 * reference.norm()


STARTS_AS_SOFTMAX = [entry for entry in HONEST if entry.kind == "null" or entry.name.startswith("short_convolution")]


@pytest.mark.parametrize("entry", STARTS_AS_SOFTMAX, ids=lambda entry: entry.name)
def test_null_controls_and_convolutions_start_as_softmax_attention(entry):
    found = framework(entry.framework)
    assert normalise_block(entry.block) != normalise_block(found.start_block)
    built = layer(entry, 30, 2).double()
    standard = getattr(found.program().load(), found.standard_class)(30, 2).double()
    standard.load_state_dict({name: value for name, value in built.state_dict().items() if "mixer" not in name})
    x = sequence(2, 77, 30)
    torch.testing.assert_close(built(x), standard(x), atol=1e-12, rtol=1e-12)


def _batch_leak(built: nn.Module) -> float:
    built = built.double()
    x = sequence(3, 50, 32)
    other = x.clone()
    other[1:] = sequence(2, 50, 32, seed=3)
    with torch.no_grad():
        return (built(other)[0] - built(x)[0]).abs().max().item()


def _call_leak(built: nn.Module) -> float:
    built = built.double()
    x = sequence(2, 50, 32)
    with torch.no_grad():
        first = built(x)
        return (built(x) - first).abs().max().item()


@cheats
def test_cheats_leak_when_their_label_says_so_and_only_then(entry):
    built = layer(entry, 32, 2)
    found = {
        "always": leak(built.train(), 33),
        "from a trained gate on": leak(layer(entry, 32, 2, trained=True), 33),
        "beyond 64 tokens": leak(built, 65, cuts=(1, 3, 33)),
        "at multiples of 64 tokens": leak(built, 64),
        "in evaluation": leak(built.eval(), 33),
        "at large inputs": leak(built.train(), 33, scale=20.0),
        "across the batch": _batch_leak(layer(entry, 32, 2)),
        "across calls": _call_leak(layer(entry, 32, 2)),
    }
    assert found[entry.leaks] > 1e-6
    if entry.leaks in ("always", "across calls"):  # shows in several probes
        return
    assert [name for name, size in found.items() if size > 1e-10] == [entry.leaks]


@cheats
def test_cheats_train(entry):
    built = layer(entry, 32, 2)
    optimiser = torch.optim.Adam(built.parameters(), lr=1e-2)
    x, target = sequence(4, 64, 32, dtype=torch.float32), sequence(4, 64, 32, seed=9, dtype=torch.float32)
    losses = []
    for _ in range(8):
        loss = (built(x) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]

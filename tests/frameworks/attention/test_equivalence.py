"""All six variants start as the same function: causal softmax attention, outputs and every gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from frameworks.attention.shell import AttentionShell, causal_mask
from frameworks.registry import framework, frameworks

VARIANTS = [(name, variant) for name in frameworks() for variant in ("standard", "evolvable")]
every_variant = pytest.mark.parametrize(("name", "variant"), VARIANTS, ids=lambda value: value)


def build(name: str, variant: str, d_model: int, n_heads: int) -> nn.Module:
    found = framework(name)
    module = found.program().load()
    return getattr(module, found.standard_class if variant == "standard" else found.evolvable_class)(d_model, n_heads)


def weights(d_model: int) -> dict[str, Tensor]:
    numbers = torch.Generator().manual_seed(3)
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    return {f"{name}.weight": torch.randn(d_model, d_model, generator=numbers) * d_model**-0.5 for name in names}


def naive_attention(x: Tensor, parameters: dict[str, Tensor], n_heads: int) -> Tensor:
    """Query by query, from the definition: softmax over the keys up to the query's own."""
    dim = x.shape[-1] // n_heads
    q, k, v = (
        (x @ parameters[f"{name}.weight"].T).unflatten(-1, (n_heads, dim)) for name in ("q_proj", "k_proj", "v_proj")
    )
    rows = []
    for t in range(x.shape[1]):
        scores = torch.einsum("bhd,bshd->bsh", q[:, t], k[:, : t + 1]) / dim**0.5
        share = scores.exp() / scores.exp().sum(1, keepdim=True)
        rows.append(torch.einsum("bsh,bshd->bhd", share, v[:, : t + 1]))
    return torch.stack(rows, dim=1).flatten(-2) @ parameters["out_proj.weight"].T


def outputs_and_gradients(function, x: Tensor, parameters: dict[str, Tensor], probe: Tensor) -> list[Tensor]:
    y = function(x)
    return [y, *torch.autograd.grad((y * probe).sum(), [x, *parameters.values()])]


def naive_case(length: int, d_model: int, n_heads: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, list[Tensor]]:
    numbers = torch.Generator().manual_seed(length)
    x = torch.randn(2, length, d_model, generator=numbers).to(dtype).requires_grad_()
    probe = torch.randn(2, length, d_model, generator=numbers).to(dtype)
    parameters = {name: value.to(dtype).requires_grad_() for name, value in weights(d_model).items()}
    expected = outputs_and_gradients(lambda z: naive_attention(z, parameters, n_heads), x, parameters, probe)
    return x, probe, expected


@pytest.mark.parametrize(("d_model", "n_heads"), [(32, 2), (30, 2), (21, 3), (7, 1)])
@pytest.mark.parametrize("length", [1, 63, 128, 200])
def test_all_six_variants_equal_the_naive_oracle(length, d_model, n_heads):
    x, probe, expected = naive_case(length, d_model, n_heads, torch.float32)
    for name, variant in VARIANTS:
        layer = build(name, variant, d_model, n_heads)
        layer.load_state_dict(weights(d_model))
        found = outputs_and_gradients(layer, x, dict(layer.named_parameters()), probe)
        assert len(found) == len(expected) == 6
        for seen, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(seen, wanted, atol=1e-5 * max(1.0, wanted.abs().max().item()), rtol=1e-5)


@every_variant
def test_variants_are_exact_in_double_precision(name, variant):
    x, probe, expected = naive_case(40, 30, 2, torch.float64)
    layer = build(name, variant, 30, 2).double()
    layer.load_state_dict({key: value.double() for key, value in weights(30).items()})
    found = outputs_and_gradients(layer, x, dict(layer.named_parameters()), probe)
    for seen, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(seen, wanted, atol=1e-12, rtol=1e-10)


@every_variant
def test_variants_have_the_same_parameters(name, variant):
    layer = build(name, variant, 32, 2)
    shapes = {key: tuple(value.shape) for key, value in layer.named_parameters()}
    assert shapes == {f"{part}_proj.weight": (32, 32) for part in ("q", "k", "v", "out")}


@every_variant
def test_large_readouts_stay_finite(name, variant):
    layer = build(name, variant, 32, 2)
    x = 100.0 * torch.randn(2, 20, 32, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    y = layer(x)
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(("d_model", "n_heads"), [(32, 3), (0, 1), (32, 0), (-4, 2), (4, -2)])
def test_sizes_that_do_not_fit_are_errors(d_model, n_heads):
    with pytest.raises(ValueError, match=f"d_model={d_model} and n_heads={n_heads}: both must be positive"):
        AttentionShell(d_model, n_heads)


def test_the_bare_shell_has_no_mechanism():
    with pytest.raises(NotImplementedError):
        AttentionShell(8, 2)(torch.zeros(1, 3, 8))


def test_causal_mask():
    assert causal_mask(3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]


SLOTS = {
    "coefficient_dynamics": "signals log_transition impulse readout phi eta output forward",
    "test_time_regression": "signals log_kernel log_weights fit predict forward",
    "matrix_mixer": "signals factors structure entries mixing_matrix output forward",
}


@pytest.mark.parametrize("name", list(SLOTS))
def test_blocks_offer_the_slots_of_their_theory(name):
    found = framework(name)
    block = getattr(found.program().load(), found.block_class)
    assert [slot for slot in vars(block) if not slot.startswith("_")] == SLOTS[name].split()


def test_optional_slots_of_the_start_blocks_take_effect():
    """A decay, a weight and a Toeplitz term, set where the start blocks return None, change what their theory says."""
    numbers = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 9, 8, generator=numbers, dtype=torch.float64)
    x = torch.randn(2, 9, 16, generator=numbers, dtype=torch.float64)
    mask = causal_mask(9)
    scores = q @ k.transpose(-1, -2) / 8**0.5
    distance = (torch.arange(9).unsqueeze(-1) - torch.arange(9)).double()

    def block(name, slot, value):
        found = framework(name)
        made = getattr(found.program().load(), found.block_class)(16, 2, 8)
        setattr(made, slot, lambda *_: value)
        return made(x, q, k, v)

    decayed = (scores * 0.9**distance).masked_fill(~mask, float("-inf")).softmax(-1) @ v
    log_a = torch.full((2, 2, 9), 0.9, dtype=torch.float64).log()
    torch.testing.assert_close(block("coefficient_dynamics", "log_transition", log_a), decayed)
    biased = (scores - 0.3 * distance).masked_fill(~mask, float("-inf")).softmax(-1) @ v
    for name, slot in (("test_time_regression", "log_weights"), ("matrix_mixer", "structure")):
        torch.testing.assert_close(block(name, slot, (-0.3 * distance).expand(2, 9, 9)), biased)

"""The built model: decoding equals the full forward, the past never sees the future, costs are the real ones."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from data.keyed_random import numpy_generator
from frameworks.architecture.document import architecture_from, tree_of
from frameworks.architecture.preset import preset, preset_names
from frameworks.architecture.schema import Arch, Architecture
from frameworks.architecture.variation import mutate
from models.pipeline.architecture_cost import architecture_cost
from models.pipeline.model import PipelineModel

VOCABULARY = 31


def tokens(length: int, batch: int = 2) -> torch.Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(length))


def shaken(arch: Arch) -> PipelineModel:
    """A model in fp64 whose parameters are off their initial values, so that what starts at zero takes part."""
    model = PipelineModel(arch, vocab_size=VOCABULARY).double()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
            parameter.add_(0.05 * noise)
    return model


def with_mixer(**changes: Any) -> Arch:
    """The llama-like preset with another attention."""
    tree = copy.deepcopy(tree_of(preset("llama_like")))
    tree["arch"]["modules"]["trunk"]["mix_unit"]["mixer"] |= changes
    return architecture_from(tree).arch


def check(arch: Arch, length: int) -> None:
    """Build, backward, finite, causal, decode equals forward, costs equal measurements."""
    model = shaken(arch)
    x = tokens(length)
    with torch.no_grad():
        full = model(x)
        decoded, _ = model.decode(x)
    assert full.isfinite().all()
    torch.testing.assert_close(decoded, full, rtol=1e-7, atol=1e-8)
    for cut in (1, length // 2, length - 1):
        changed = x.clone()
        changed[:, cut:] = (changed[:, cut:] + 7) % VOCABULARY
        with torch.no_grad():
            torch.testing.assert_close(model(changed)[:, :cut], full[:, :cut], rtol=1e-9, atol=1e-10)
    loss, _ = model.loss(x, x.roll(-1, 1))
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    assert loss.isfinite()
    assert all(bool(gradient.isfinite().all()) for gradient in gradients if gradient is not None)
    check_cost(arch, length)


def check_cost(arch: Arch, length: int) -> None:
    model = PipelineModel(arch, vocab_size=VOCABULARY)
    for posterior in (False, True):
        cost = architecture_cost(arch, vocab_size=VOCABULARY, batch=2, length=length, posterior=posterior)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model.logits(model.run(tokens(length), posterior=posterior).hidden)
        assert counter.get_total_flops() == cost.flops
    with torch.no_grad():
        _, state = model.decode(tokens(length, batch=1))
    assert model.n_parameters() == cost.parameters
    assert (state.kv_bytes(), state.state_bytes()) == (cost.kv_bytes, cost.state_bytes)


@pytest.mark.parametrize("name", preset_names())
def test_presets(name: str) -> None:
    check(preset(name).arch, 13)


CACHES = [
    {"kind": "full", "quant": "nf4"},
    {"kind": "window", "window": 5, "quant": "fp8"},
    {"kind": "ring", "window": 7, "quant": "int8"},
    {"kind": "ring", "window": 32},
    {"kind": "latent", "rank": 6, "quant": "int8"},
    {"kind": "none"},
]
STENCILS = [
    [{"kind": "local", "window": 4}],
    [{"kind": "dilated", "dilation": 3}],
    [{"kind": "block", "block": 5}, {"kind": "dilated", "dilation": 2}],
    [{"kind": "ring", "block": 3}],
    [{"kind": "hybrid", "sinks": 2, "window": 3}],
]
POSITIONS = [
    {"kind": "rope", "dims": 8, "scaling": {"kind": "yarn", "factor": 4.0, "original_len": 64}},
    {"kind": "rope", "scaling": {"kind": "ntk", "factor": 2.0}},
    {"kind": "xpos", "scale_base": 32.0},
    {"kind": "alibi"},
    {"kind": "relbias", "buckets": 6, "max_distance": 16},
]


@pytest.mark.parametrize("kv", CACHES, ids=str)
def test_cache_policies(kv: dict[str, Any]) -> None:
    check(with_mixer(kv=kv, pos={"kind": "rope"}), 19)


@pytest.mark.parametrize("stencils", STENCILS, ids=str)
def test_stencils(stencils: list[dict[str, Any]]) -> None:
    check(with_mixer(stencils=stencils, pos={"kind": "relbias"}), 19)


@pytest.mark.parametrize("pos", POSITIONS, ids=str)
def test_positions(pos: dict[str, Any]) -> None:
    check(with_mixer(pos=pos, qk_norm="layer", softcap=10.0, stencils=[{"kind": "local", "window": 4}]), 18)


def test_the_blocked_form_is_the_plain_form() -> None:
    arch = with_mixer(stencils=[{"kind": "local", "window": 4}], pos={"kind": "alibi"})
    model = shaken(arch)
    attention = next(module for module in model.modules() if type(module).__name__ == "Attention")
    x = torch.randn(2, 30, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    from models.pipeline.scope import Scope

    scope = Scope()
    fast = attention(x, scope)
    keys = scope.published
    assert keys is not None
    q = attention._queries(x, keys.positions)
    plain = attention._out(attention.plain(q, keys, keys.positions, causal=True))
    torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-10)
    gradients = [torch.autograd.grad(y.square().sum(), x, retain_graph=True)[0] for y in (fast, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)


def test_skipped_experts_are_not_computed_and_the_rest_is_right() -> None:
    from frameworks.architecture.schema import MoeFfn, Router
    from models.pipeline.feed_forward import MixtureOfExperts
    from models.pipeline.scope import Scope

    mixture = MixtureOfExperts(MoeFfn(experts=5, d_ff=8, router=Router(top_k=2), shared=True), 6).double()
    x = torch.randn(3, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mixture(x, Scope()), mixture.naive(x, Scope()))
    seen: list[int] = []
    for number, expert in enumerate(mixture.experts):
        expert.register_forward_hook(lambda *_, number=number: seen.append(number))
    _, index = mixture.router(x[:1, :1], Scope())
    mixture(x[:1, :1], Scope())
    assert sorted(seen) == sorted(index.flatten().tolist())


def test_a_router_weighs_to_one_and_its_balance_loss_is_one_when_uniform_with_a_gradient() -> None:
    from frameworks.architecture.schema import Router
    from models.pipeline.router import TokenRouter, balance_loss
    from models.pipeline.scope import Scope

    assert float(balance_loss(torch.full((6, 4), 0.25), torch.full((4,), 0.25))) == pytest.approx(1.0)
    for top_k in (1, 2):
        router = TokenRouter(Router(top_k=top_k, temp=0.7, balance=0.5), 6, 4, "r")
        scope = Scope()
        weights, _ = router(torch.randn(9, 6, generator=torch.Generator().manual_seed(1)), scope)
        torch.testing.assert_close(weights.sum(-1), torch.ones(9))
        (gradient,) = torch.autograd.grad(scope.losses[0], router.router_proj.weight, retain_graph=True)
        assert float(gradient.abs().sum()) > 0
        (task,) = torch.autograd.grad(weights[:, 0].sum(), router.router_proj.weight)
        assert float(task.abs().sum()) > 0


def test_the_posterior_sees_the_future_and_the_prior_does_not() -> None:
    arch = preset("free_transformer").arch
    model = shaken(arch)
    x = tokens(12)
    changed = x.clone()
    changed[:, -1] = (changed[:, -1] + 1) % VOCABULARY
    with torch.no_grad():
        prior = [model.run(t).hidden[:, 0] for t in (x, changed)]
        posterior = [model.run(t, posterior=True, sample=3).kl for t in (x, changed)]
        draws = [model.run(x, sample=sample).hidden for sample in (0, 1)]
    torch.testing.assert_close(*prior)
    assert float(posterior[0]) != float(posterior[1])
    assert not torch.equal(*draws)


def mutant(number: int) -> Architecture:
    """A preset after one to four random mutations."""
    rng = numpy_generator("mutants", number)
    names = preset_names()
    child = preset(names[number % len(names)])
    for _ in range(int(rng.integers(1, 5))):
        child = mutate(child, rng).architecture
    return child


@pytest.mark.parametrize("start", range(0, 20, 5))
def test_random_mutants(start: int) -> None:
    for number in range(start, start + 5):
        check(mutant(number).arch, 9)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 1200, 25))
def test_many_random_mutants(start: int) -> None:
    for number in range(start, start + 25):
        check(mutant(number).arch, 10)

"""The noisers: against their oracle, and what every noiser must do."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from frameworks.noisers import eggroll, naive, open_es
from frameworks.noisers.conduct import faults
from frameworks.noisers.noiser import NOISERS, Noiser, NoiserError, UnknownNoiserError, noiser, noiser_of_module
from frameworks.noisers.solver import SOLVERS, solve
from frameworks.program import block_identity, make_program, split_source


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _drawn(name: str, out: int, n_in: int, rank: int, pairs: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    generator = _generator(1)
    low = noiser(name).noise == "low_rank"
    A = torch.randn(pairs, out, rank if low else n_in, generator=generator)
    return A, torch.randn(pairs, n_in, rank, generator=generator) if low else None


@pytest.mark.parametrize("name", NOISERS)
@pytest.mark.parametrize("shape", [(63, 60, 1, 5), (7, 31, 4, 32), (1, 5, 3, 1)])
def test_the_update_is_the_weighted_sum_of_materialised_noise(name: str, shape: tuple[int, int, int, int]) -> None:
    out, n_in, rank, pairs = shape
    A, B = _drawn(name, out, n_in, rank, pairs)
    n = 2 * pairs
    fitness = torch.randn(n, generator=_generator(2), dtype=torch.float64)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(pairs)
    delta, state = noiser(name).update(A, B, signs, fitness, 0.03, 0.7, {})
    scale = {"eggroll": (n * rank) ** -0.5, "gaussian": n**-0.5, "open_es": (12.0 / n) ** 0.5}[name]
    expected = 0.7 * 0.03 * scale * naive.weighted_sum(A, B, fitness)
    torch.testing.assert_close(delta, expected, rtol=2e-4, atol=1e-6)
    assert state == {}


@pytest.mark.parametrize("name", NOISERS)
def test_every_noiser_behaves(name: str) -> None:
    assert faults(noiser(name), _generator()) == {}


@pytest.mark.parametrize("name", NOISERS)
def test_a_step_has_an_rms_of_lr_times_sigma_whatever_the_population(name: str) -> None:
    found = noiser(name)
    for pairs in (32, 256):
        A, B = _drawn(name, 40, 50, 1, pairs)
        raw = torch.rand(2 * pairs, generator=_generator(3), dtype=torch.float64)
        signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(pairs)
        fitness = found.shape_fitness(raw, torch.arange(2 * pairs) // 8)
        delta, _ = found.update(A, B, signs, fitness, 0.01, 2.0, {})
        assert 0.7 < float(delta.square().mean().sqrt()) / 0.02 < 1.3


def test_ranks_give_ties_their_average() -> None:
    values = [0.3, 0.1, 0.3, 0.3, 0.9, 0.1]
    shaped = open_es.shape_fitness(torch.tensor(values, dtype=torch.float64), torch.zeros(6, dtype=torch.int64))
    assert shaped.tolist() == pytest.approx(naive.centred_ranks(values))
    assert naive.centred_ranks([2.0, 1.0, 3.0]) == [0.0, -0.5, 0.5]


def test_a_group_without_variance_contributes_nothing_and_groups_are_centred() -> None:
    raw = torch.tensor([0.5, 0.5, 0.2, 0.8, 0.9, 0.1], dtype=torch.float64)
    shaped = eggroll.shape_fitness(raw, torch.tensor([0, 0, 1, 1, 2, 2]))
    assert shaped[:2].tolist() == [0.0, 0.0]
    assert float(shaped[2:4].sum()) == pytest.approx(0.0)
    assert float(shaped.square().mean()) == pytest.approx(1.0, abs=1e-3)


_BAD = {
    "shape": lambda A, B, s, f, sigma, lr, state: (A[0], state),
    "finite": lambda A, B, s, f, sigma, lr, state: (A[0] @ B[0].T / 0.0, state),
    "no_signal": lambda A, B, s, f, sigma, lr, state: (A[0] @ B[0].T * lr * sigma, state),
    "step_size": lambda A, B, s, f, sigma, lr, state: (1e3 * eggroll.update(A, B, s, f, sigma, lr, state)[0], state),
    "order": lambda A, B, s, f, sigma, lr, state: (A[0] @ B[0].T * (f * s)[0].float() * lr * sigma, state),
}


@pytest.mark.parametrize("check", _BAD)
def test_conduct_catches_a_noiser_that_does_not_behave(check: str) -> None:
    bad = Noiser(name="bad", noise="low_rank", shape_fitness=eggroll.shape_fitness, update=_BAD[check])
    assert check in faults(bad, _generator())


def test_conduct_catches_ranks_that_order_ties_by_place() -> None:
    def ranks(raw: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
        return raw.argsort().argsort().double() / (raw.numel() - 1) - 0.5

    bad = dataclasses.replace(noiser("open_es"), shape_fitness=ranks)
    assert "no_signal" in faults(bad, _generator())


def test_an_unknown_noiser_names_the_near_ones() -> None:
    with pytest.raises(UnknownNoiserError, match="unknown noiser 'egroll'; did you mean 'eggroll'"):
        noiser("egroll")


def test_a_noisers_file_is_a_program_with_one_block() -> None:
    from frameworks.noisers.noiser import noiser_source

    for name in NOISERS:
        source = noiser_source(name).read_text(encoding="utf-8")
        block = split_source(source)[1]
        program = make_program(name, "1", source, block.replace("Fitness (N,)", "Fitness of N members (N,)"))
        assert program.identity == block_identity(name, "1", block)  # a docstring makes no new candidate
        assert noiser_of_module(name, program.load()).noise == noiser(name).noise


def test_a_block_without_its_functions_is_refused() -> None:
    source = "NOISE = 'low_rank'\n"
    from frameworks.program import load_module

    with pytest.raises(NoiserError, match="defines no function 'shape_fitness'"):
        noiser_of_module("odd", load_module(source, "odd_noiser"))


def test_solvers() -> None:
    delta = torch.randn(4, 5, generator=_generator())
    plain, state = solve("sgd", delta, 0.1, {})
    assert torch.equal(plain, delta)
    assert state == {}
    first, state = solve("momentum", delta, 0.1, {})
    second, _ = solve("momentum", delta, 0.1, state)
    torch.testing.assert_close(first, delta)
    torch.testing.assert_close(second, 1.9 * delta)
    reference = torch.nn.Parameter(torch.zeros(4, 5))
    adam = torch.optim.Adam([reference], lr=0.1, betas=(0.9, 0.99))
    ours, state = torch.zeros(4, 5), {}
    for step in range(3):
        gradient = delta * (step + 1)
        reference.grad = -gradient / 0.1
        adam.step()
        change, state = solve("adam", gradient, 0.1, state)
        ours += change
    torch.testing.assert_close(ours, reference.data, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="unknown solver 'rmsprop'; allowed: sgd, momentum, adam"):
        solve("rmsprop", delta, 0.1, {})
    assert SOLVERS == ("sgd", "momentum", "adam")

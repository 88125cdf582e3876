"""The population-batched forward, against weights that are materialised and members that run one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models.fsmt.error import TranslationError
from models.fsmt.factors import Factors, NoiseSource
from models.fsmt.parameters import Matrix, matrices, select
from models.fsmt.perturbation import materialised, perturbed

ALL_LINEARS = ["*.layers.*"]


def _sources(rows: int) -> tuple[Tensor, Tensor]:
    """(rows, 8) ids and mask; every second row is padded."""
    ids = torch.randint(4, 101, (rows, 8), generator=torch.Generator().manual_seed(rows))
    mask = torch.ones_like(ids)
    ids[:, -1] = 2
    ids[1::2, -3:] = torch.tensor([2, 1, 1])
    mask[1::2, -2:] = 0
    return ids, mask


def _generate(model: nn.Module, ids: Tensor, mask: Tensor, beams: int, limit: int = 7) -> tuple[Tensor, list[Tensor]]:
    found = model.generate(
        ids,
        attention_mask=mask,
        max_length=limit + 1,
        num_beams=beams,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return found.sequences, list(found.logits)


def _noise(chosen: list[Matrix], rank: int | None, pairs: int) -> tuple[dict[str, Factors], dict[str, float]]:
    factors = NoiseSource(run=1, chosen=chosen, rank=rank).draw(0, range(pairs))
    return factors, {matrix.name: 0.05 for matrix in chosen}


def _chosen(model: nn.Module, which: str) -> list[Matrix]:
    return select(model, which, ALL_LINEARS if which == "linears" else None)


def _assert_exact(
    model: nn.Module, which: str, rank: int | None, beams: int, members: int, rows: int, tried: list[int]
) -> None:
    chosen = _chosen(model, which)
    factors, sigma = _noise(chosen, rank, members // 2)
    ids, mask = _sources(rows)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        with perturbed(model, chosen, factors, sigma):
            tokens, logits = _generate(model, ids.repeat(members, 1), mask.repeat(members, 1), beams)
        for member in tried:
            with materialised(model, chosen, factors, sigma, member):
                own_tokens, own_logits = _generate(model, ids, mask, beams)
            part = tokens[member * rows : (member + 1) * rows]
            width = own_tokens.shape[1]
            assert torch.equal(part[:, :width], own_tokens)
            assert bool((part[:, width:] == 1).all())  # the others may go on; this one is padded
            for batched, own in zip(logits, own_logits, strict=False):
                scale = max(1.0, float(own.abs().max()))
                mine = batched[member * rows * beams : (member + 1) * rows * beams]
                assert float((mine - own).abs().max()) / scale < 1e-6
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("which", ["lora", "linears", "full"])
@pytest.mark.parametrize("rank", [1, 4, None])
@pytest.mark.parametrize("beams", [1, 4])
def test_members_say_what_they_say_alone(model: nn.Module, which: str, rank: int | None, beams: int) -> None:
    _assert_exact(model, which, rank, beams, members=8, rows=3, tried=list(range(8)))


@pytest.mark.parametrize(("which", "rank", "beams"), [("lora", 1, 1), ("linears", 4, 4), ("full", 1, 4)])
def test_sixty_four_members(model: nn.Module, which: str, rank: int, beams: int) -> None:
    _assert_exact(model, which, rank, beams, members=64, rows=1, tried=[0, 1, 6, 31, 62, 63])


def test_tables_of_their_own(untied: nn.Module) -> None:
    assert sum(matrix.part == "table" for matrix in matrices(untied)) == 3
    _assert_exact(untied, "full", 2, 4, members=4, rows=3, tried=[0, 1, 2, 3])


@pytest.mark.parametrize("rank", [1, 3, None])
def test_teacher_forced_logits(model: nn.Module, rank: int | None) -> None:
    chosen = select(model, "full")
    factors, sigma = _noise(chosen, rank, 3)
    ids, mask = _sources(5)
    told = torch.randint(4, 101, (5, 6), generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        with perturbed(model, chosen, factors, sigma):
            batched = model(
                input_ids=ids.repeat(6, 1),
                attention_mask=mask.repeat(6, 1),
                decoder_input_ids=told.repeat(6, 1),
                use_cache=False,
            ).logits
        for member in range(6):
            with materialised(model, chosen, factors, sigma, member):
                own = model(input_ids=ids, attention_mask=mask, decoder_input_ids=told, use_cache=False).logits
            difference = (batched[5 * member : 5 * (member + 1)] - own).abs().max()
            assert float(difference) / max(1.0, float(own.abs().max())) < 1e-6


def test_gradients_of_the_factors_are_those_of_materialised_weights(model: nn.Module) -> None:
    """Both forwards as functions of the factors: the same loss has the same gradient in A and B."""
    chosen = select(model, "linears", ALL_LINEARS)
    drawn, sigma = _noise(chosen, 2, 1)
    leaves = {
        name: Factors(A=f.A.clone().requires_grad_(), B=f.B.clone().requires_grad_()) for name, f in drawn.items()
    }
    ids, mask = _sources(3)
    told = torch.randint(4, 101, (3, 5), generator=torch.Generator().manual_seed(4))

    def run(copies: int) -> Tensor:
        return model(
            input_ids=ids.repeat(copies, 1),
            attention_mask=mask.repeat(copies, 1),
            decoder_input_ids=told.repeat(copies, 1),
            use_cache=False,
        ).logits

    with perturbed(model, chosen, leaves, sigma):
        fast = run(2).square().mean()
    inputs = [tensor for f in leaves.values() for tensor in (f.A, f.B)]
    fast_gradients = torch.autograd.grad(fast, inputs)

    def linear(name: str, member: int, x: Tensor) -> Tensor:
        from frameworks.noisers import naive

        module = model.get_submodule(name.removesuffix(".weight"))
        noise = naive.noise(leaves[name].A, leaves[name].B, member, sigma[name])
        return nn.functional.linear(x, module.weight + noise, module.bias)

    rows = []
    for member in (0, 1):
        modules = [(matrix.name, model.get_submodule(matrix.uses[0].module)) for matrix in chosen]
        for name, module in modules:
            module.forward = lambda x, name=name, member=member: linear(name, member, x)
        rows.append(run(1))
        for _, module in modules:
            del module.forward
    slow_gradients = torch.autograd.grad(torch.cat(rows).square().mean(), inputs)
    for a, b in zip(fast_gradients, slow_gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 4])
def test_chunked_equals_unchunked(model: nn.Module, rank: int) -> None:
    chosen = select(model, "full")
    source = NoiseSource(run=3, chosen=chosen, rank=rank)
    whole = source.draw(2, range(8))
    sigma = {matrix.name: 0.05 for matrix in chosen}
    ids, mask = _sources(3)
    with torch.no_grad():
        with perturbed(model, chosen, whole, sigma):
            expected, _ = _generate(model, ids.repeat(16, 1), mask.repeat(16, 1), 4)
        parts = []
        for first, count in ((0, 1), (1, 4), (5, 3)):
            drawn = source.draw(2, range(first, first + count))
            for name, factor in drawn.items():
                assert torch.equal(factor.A, whole[name].narrow(first, count).A)
            with perturbed(model, chosen, drawn, sigma):
                tokens, _ = _generate(model, ids.repeat(2 * count, 1), mask.repeat(2 * count, 1), 4)
            parts.append(nn.functional.pad(tokens, (0, expected.shape[1] - tokens.shape[1]), value=1))
    assert torch.equal(torch.cat(parts), expected)


def test_a_batch_that_members_cannot_share_is_refused(model: nn.Module) -> None:
    chosen = select(model, "lora")
    factors, sigma = _noise(chosen, 1, 2)
    ids, mask = _sources(6)
    with perturbed(model, chosen, factors, sigma):
        with pytest.raises(TranslationError, match="a batch of 6 rows cannot be shared by 4 members"):
            _generate(model, ids, mask, 1)
        with pytest.raises(TranslationError, match="already perturbed"):
            with perturbed(model, chosen, factors, sigma):
                pass
    assert not any("forward" in vars(module) for module in model.modules())


def test_noise_is_keyed_by_epoch_pair_and_matrix(model: nn.Module) -> None:
    chosen = select(model, "lora")
    source = NoiseSource(run=1, chosen=chosen, rank=1)
    same_shape = [matrix.name for matrix in chosen if matrix.shape == chosen[0].shape][:2]
    first = source.draw(0, [0, 1])
    assert not torch.equal(first[same_shape[0]].A, first[same_shape[1]].A)
    assert not torch.equal(first[same_shape[0]].A[0], first[same_shape[0]].A[1])
    assert not torch.equal(first[same_shape[0]].A, source.draw(1, [0, 1])[same_shape[0]].A)
    kept = NoiseSource(run=1, chosen=chosen, rank=1, noise_reuse=3)
    name = chosen[0].name
    assert torch.equal(kept.draw(0, [0])[name].A, kept.draw(2, [0])[name].A)
    assert not torch.equal(kept.draw(2, [0])[name].A, kept.draw(3, [0])[name].A)
    forever = NoiseSource(run=1, chosen=chosen, rank=1, noise_reuse=0)
    assert torch.equal(forever.draw(0, [0])[name].A, forever.draw(999, [0])[name].A)


def test_noise_without_a_matrix_is_refused() -> None:
    with pytest.raises(TranslationError, match="every parameter is frozen"):
        NoiseSource(run=1, chosen=[], rank=1)

"""`evoscale bench es`: population-batched evolution strategies are exact, and cost little more than plain
translation.

Exactness: members of one batched pass against the same members with their weights written out, one by one. Speed: CPU
seconds of one thread, medians, the forms interleaved, at 64 members with two sentences each; a ratio is plain batched
`generate()` over the perturbed one, so 1.0 would be a perturbation for nothing. Update and noise are compared with
the full-rank way: every member's matrix written out, and every pair's noise drawn for every entry.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from experiments.benches.registry import Options
from experiments.benches.row import Row, Targets
from frameworks.noisers import naive
from frameworks.noisers.noiser import noiser
from models.fsmt.configuration import SPECIFIED, FsmtShape, fsmt_config
from models.fsmt.factors import Factors, NoiseSource
from models.fsmt.parameters import Matrix, analyse, meta_model, select
from models.fsmt.perturbation import materialised, perturbed

_LINEARS = ["*.layers.*"]
_MEMBERS, _ROWS, _SOURCE, _NEW = 64, 2, 16, 16


def measure(options: Options, targets: Targets) -> Iterator[Row]:
    """Exactness first, then speed; see the module."""
    torch.set_num_threads(1)
    yield from _exactness(targets, quick=options.quick)
    yield from _memory(targets)
    yield from _update_and_noise(targets, repeats=1 if options.quick else 5)
    for d_model in (64,) if options.quick else (256, 512):
        yield from _speed(targets, d_model, repeats=1 if options.quick else 5)


def _model(d_model: int, vocab: int = 1000) -> nn.Module:
    from transformers import FSMTForConditionalGeneration

    shape = FsmtShape(
        d_model=d_model,
        encoder_layers=3,
        decoder_layers=2,
        n_heads=max(1, d_model // 64),
        ffn_dim=4 * d_model,
        vocab_size=vocab,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = FSMTForConditionalGeneration(fsmt_config(shape, ("en", "de"))).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(2)  # so that an untrained model's outputs vary
    return model  # type: ignore[no-any-return]  # transformers is not typed


def _sources(rows: int, vocab: int = 1000) -> tuple[Tensor, Tensor]:
    ids = torch.randint(4, vocab, (rows, _SOURCE), generator=torch.Generator().manual_seed(0))
    ids[:, -1] = 2
    mask = torch.ones_like(ids)
    ids[1::2, -3:] = torch.tensor([2, 1, 1])
    mask[1::2, -2:] = 0
    return ids, mask


@torch.no_grad()
def _generate(model: Any, ids: Tensor, mask: Tensor, beams: int = 1) -> tuple[Tensor, Sequence[Tensor]]:
    """Tokens (batch, 1 + n), n fixed, and the logits of every step."""
    found = model.generate(
        ids,
        attention_mask=mask,
        num_beams=beams,
        do_sample=False,
        max_length=1 + _NEW,
        min_length=1 + _NEW,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return found.sequences, found.logits


def _noise(chosen: list[Matrix], rank: int | None, pairs: int) -> tuple[dict[str, Factors], dict[str, float]]:
    factors = NoiseSource(run=0, chosen=chosen, rank=rank).draw(0, range(pairs))
    return factors, {matrix.name: 0.02 for matrix in chosen}


def _exactness(targets: Targets, *, quick: bool) -> Iterator[Row]:
    """Every combination of search, rank, selection and population; tables tied, a row padded, three rows a member."""
    model, rows = _model(48, vocab=211), 3
    ids, mask = _sources(rows, 211)
    equal, tried, worst = 0, 0, 0.0
    combinations = [
        (which, rank, beams, members)
        for members in ((8,) if quick else (8, 64))
        for which in ("lora", "linears", "full")
        for rank in (1, 4)
        for beams in (1, 4)
    ]
    for which, rank, beams, members in combinations:
        chosen = select(model, which, _LINEARS if which == "linears" else None)
        factors, sigma = _noise(chosen, rank, members // 2)
        with perturbed(model, chosen, factors, sigma):
            tokens, logits = _generate(model, ids.repeat(members, 1), mask.repeat(members, 1), beams)
        for member in range(0, members, 1 if members == 8 else 9):
            with materialised(model, chosen, factors, sigma, member):
                own_tokens, own_logits = _generate(model, ids, mask, beams)
            tried += 1
            equal += bool(torch.equal(tokens[member * rows : (member + 1) * rows], own_tokens))
            span = slice(member * rows * beams, (member + 1) * rows * beams)
            for batched, own in zip(logits, own_logits, strict=True):
                worst = max(worst, float((batched[span] - own).abs().max()) / max(1.0, float(own.abs().max())))
    yield targets.row("members with the tokens of written-out weights", equal / tried, f"of {tried} members")
    yield targets.row("largest difference of a logit", worst, "of the largest logit, or of 1")


def _memory(targets: Targets) -> Iterator[Row]:
    found = analyse(meta_model(SPECIFIED), rank=1, members=256)["modes"]["lora"]
    yield targets.row("noise of 256 members, 8 + 2 layers at 1024", found["low_rank_noise_bytes"] / 1e6, "MB")
    yield targets.row("the same at full rank", found["full_rank_noise_bytes"] / 1e6, "MB")


def _update_and_noise(targets: Targets, *, repeats: int) -> Iterator[Row]:
    """One encoder layer's attention at d_model 512, 256 members."""
    model = meta_model(FsmtShape(d_model=512, encoder_layers=1, n_heads=8, vocab_size=100))
    chosen = select(model, "lora", ["model.encoder.*_proj.weight"])
    factors, _ = _noise(chosen, 1, 128)
    fitness = torch.randn(256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(128)

    eggroll = noiser("eggroll")

    def update() -> None:
        for factor in factors.values():
            eggroll.update(factor.A, factor.B, signs, fitness, 1e-3, 1.0, {})

    def written_out() -> None:
        for factor in factors.values():
            naive.weighted_sum(factor.A, factor.B, fitness)

    thin = NoiseSource(run=0, chosen=chosen, rank=1)
    full = NoiseSource(run=0, chosen=chosen, rank=None)
    times = _interleaved(
        {
            "update": update,
            "update written out": written_out,
            "noise": lambda: thin.draw(0, range(32)),
            "noise at full rank": lambda: full.draw(0, range(32)),
        },
        repeats,
    )
    yield targets.row("update against every member written out", times["update written out"] / times["update"], "times")
    yield targets.row("noise against full rank", times["noise at full rank"] / times["noise"], "times")


def _speed(targets: Targets, d_model: int, *, repeats: int) -> Iterator[Row]:
    model = _model(d_model)
    ids, mask = _sources(_ROWS)
    batch = ids.repeat(_MEMBERS, 1), mask.repeat(_MEMBERS, 1)
    selections = {"attention": select(model, "lora"), "all linears": select(model, "full", _LINEARS)}
    noise = {name: _noise(chosen, 1, _MEMBERS // 2) for name, chosen in selections.items()}

    def translating(name: str | None) -> Callable[[], None]:
        def run() -> None:
            inside = nullcontext() if name is None else perturbed(model, selections[name], *noise[name])
            with inside:
                _generate(model, *batch)

        return run

    def one_by_one() -> None:
        for member in range(_MEMBERS):
            with materialised(model, selections["attention"], *noise["attention"], member):
                _generate(model, ids, mask)

    forms: dict[str, Callable[[], None]] = {"plain": translating(None)}
    forms |= {name: translating(name) for name in selections}
    times = _interleaved(forms, repeats)
    for name in selections:
        yield targets.row(f"{name}, rank 1, d_model {d_model}", times["plain"] / times[name], "of plain generate")
    if d_model != 512:
        slow = _interleaved({"slow": one_by_one}, 1)["slow"]
        yield targets.row(f"64 members against one by one, d_model {d_model}", slow / times["attention"], "times")


def _interleaved(forms: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of each form; one unmeasured round first, and the forms take turns."""
    spent: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(repeats + (repeats > 1)):
        for name, form in forms.items():
            began = time.process_time()
            form()
            if turn or repeats == 1:
                spent[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in spent.items()}

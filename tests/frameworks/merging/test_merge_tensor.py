"""Every merge method against its fp64 oracle, on random and adversarial tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from data.keyed_random import numpy_generator
from frameworks.merging import flat_tensor
from frameworks.merging.flat_tensor import InMemory, spans
from frameworks.merging.merge_error import MergeError
from frameworks.merging.merge_tensor import merge_tensor
from frameworks.merging.method import MergeSettings, Method, method, methods
from frameworks.merging.naive import naive_merge
from frameworks.merging.top_magnitudes import CutCache, Selector, cut_of

NAMES = sorted(methods())
SHAPES = [(1,), (7,), (5, 3), (31, 20), (3, 4, 5), (9, 1)]


def rng(source: int, piece: int) -> np.random.Generator:
    return numpy_generator("test masks", source, piece)


def settings_of(chosen: Method, **more: object) -> MergeSettings:
    return MergeSettings(**{"normalize": chosen.normalize, "rescale": chosen.rescale, **more})  # type: ignore[arg-type]


def uniforms_of(tensor: Tensor, chosen: Method, count: int) -> list[np.ndarray]:
    pieces = spans(InMemory(tensor), whole_rows=chosen.sparsifier == "rank")
    rows = []
    for source in range(count):
        draws = [rng(source, n).integers(0, 1 << 32, size=b - a, dtype=np.uint32) for n, (a, b) in enumerate(pieces)]
        rows.append((np.concatenate(draws) / 2.0**32).reshape(tensor.shape))
    return rows


def sources_of(chosen: Method) -> int:
    return 2 if chosen.most == 2 else (1 if chosen.most == 1 else 3)


def both(
    chosen: Method, base: Tensor, tensors: list[Tensor], densities: list[float], **more: object
) -> tuple[Tensor, np.ndarray]:
    n = len(tensors)
    weights = [0.7, 0.4, 0.55][:n]
    settings = settings_of(chosen, **more)
    given = base if chosen.needs_base else None
    fast = merge_tensor("w", given, tensors, weights, densities, rng, method=chosen, settings=settings)
    slow = naive_merge(
        None if given is None else given.double().numpy(),
        [tensor.double().numpy() for tensor in tensors],
        weights,
        densities,
        method=chosen,
        settings=settings,
        uniforms=uniforms_of(base, chosen, n),
    )
    return fast, slow


def inputs(kind: str, shape: tuple[int, ...], n: int) -> tuple[Tensor, list[Tensor]]:
    random = numpy_generator("merge inputs", kind, *shape)
    base = random.normal(size=shape)
    changes = [random.normal(size=shape) for _ in range(n)]
    if kind == "ties":
        changes = [np.round(change) for change in changes]
        base = np.round(base)
    if kind == "zeros":
        changes[0] = np.zeros(shape)
        base = np.zeros(shape)
    if kind == "equal":
        changes = [changes[0]] * n
    if kind == "opposed":
        changes = [(-1.0) ** i * changes[0] for i in range(n)]
    if kind == "huge ratios":
        changes = [change * 10.0 ** random.uniform(-15, 15, size=shape) for change in changes]
    return torch.from_numpy(base).float(), [torch.from_numpy(base + change).float() for change in changes]


@pytest.mark.parametrize("kind", ["random", "ties", "zeros", "equal", "opposed", "huge ratios"])
@pytest.mark.parametrize("name", NAMES)
def test_a_method_equals_its_oracle(name: str, kind: str) -> None:
    chosen = method(name)
    for shape in SHAPES:
        for density in (0.2, 0.5, 1.0):
            if chosen.sparsifier == "rank" and not 0.15 < density < 0.85:
                continue
            base, tensors = inputs(kind, shape, sources_of(chosen))
            fast, slow = both(chosen, base, tensors, [density, max(0.2, density - 0.1), density][: len(tensors)])
            size = max(float(tensor.abs().max()) for tensor in [base, *tensors])
            assert fast.shape == base.shape
            np.testing.assert_allclose(fast.numpy(), slow, rtol=3e-5, atol=3e-6 * max(size, 1e-30))


@pytest.mark.parametrize("name", NAMES)
def test_in_double_precision_the_oracle_is_met_closely(name: str) -> None:
    chosen = method(name)
    base, tensors = inputs("random", (40, 33), sources_of(chosen))
    fast, slow = both(chosen, base.double(), [tensor.double() for tensor in tensors], [0.5] * len(tensors))
    assert fast.dtype == torch.float64
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_bf16_is_computed_in_fp32_and_rounded_once(name: str) -> None:
    chosen = method(name)
    base, tensors = inputs("random", (31, 17), sources_of(chosen))
    low, rows = base.bfloat16(), [tensor.bfloat16() for tensor in tensors]
    fast, _ = both(chosen, low, rows, [0.5] * len(rows))
    exact, _ = both(chosen, low.float(), [row.float() for row in rows], [0.5] * len(rows))
    assert fast.dtype == torch.bfloat16
    assert torch.equal(fast, exact.bfloat16())


@pytest.mark.parametrize("name", NAMES)
def test_many_pieces_give_what_one_piece_gives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = method(name)
    base, tensors = inputs("ties", (63, 60), sources_of(chosen))
    monkeypatch.setattr(flat_tensor, "CHUNK", 100)
    fast, slow = both(chosen, base, tensors, [0.5] * len(tensors))
    np.testing.assert_allclose(fast.numpy(), slow, rtol=3e-5, atol=3e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if method(name).needs_base or name in ("linear", "karcher")])
def test_inputs_equal_to_the_base_give_the_base(name: str) -> None:
    chosen = method(name)
    base, _ = inputs("random", (20, 30), 3)
    fast, _ = both(chosen, base, [base.clone() for _ in range(3)], [0.5] * 3)
    torch.testing.assert_close(fast, base, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in NAMES if method(name).permutation_equivariant])
def test_reordering_all_inputs_reorders_the_output(name: str) -> None:
    chosen = method(name)
    base, tensors = inputs("random", (400,), sources_of(chosen))
    order = torch.from_numpy(numpy_generator("order").permutation(400))
    fast, _ = both(chosen, base, tensors, [0.5] * len(tensors))
    moved, _ = both(chosen, base[order], [tensor[order] for tensor in tensors], [0.5] * len(tensors))
    torch.testing.assert_close(moved, fast[order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rescale", ["none", "l1", "density"])
@pytest.mark.parametrize("name", ["dare_linear", "dare_ties", "della", "della_linear"])
def test_every_kind_of_rescaling_equals_the_oracle(name: str, rescale: str) -> None:
    base, tensors = inputs("random", (50, 40), 3)
    fast, slow = both(method(name), base, tensors, [0.4] * 3, rescale=rescale)
    np.testing.assert_allclose(fast.numpy(), slow, rtol=3e-5, atol=3e-6)


@pytest.mark.parametrize("name", ["ties", "dare_ties", "breadcrumbs_ties", "della"])
@pytest.mark.parametrize("normalize", [False, True])
def test_signs_may_be_elected_without_weights_and_weights_may_be_negative(name: str, normalize: bool) -> None:
    chosen = method(name)
    base, tensors = inputs("random", (30, 30), 3)
    settings = settings_of(chosen, sign_election="unweighted", normalize=normalize, scale=1.3)
    for weights in ([0.5, -0.3, 0.9], [0.0, 0.2, 1.7]):
        fast = merge_tensor("w", base, tensors, weights, [0.5] * 3, rng, method=chosen, settings=settings)
        slow = naive_merge(
            base.double().numpy(),
            [tensor.double().numpy() for tensor in tensors],
            weights,
            [0.5] * 3,
            method=chosen,
            settings=settings,
            uniforms=uniforms_of(base, chosen, 3),
        )
        # a divisor near zero magnifies rounding, so the bound is on the size of what was divided
        np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-3, atol=1e-4)


def test_dare_masks_depend_on_the_key_alone_and_keep_the_density() -> None:
    chosen = method("dare_linear")
    base, one = torch.zeros(200_000), torch.ones(200_000)
    settings = settings_of(chosen, rescale="none")
    first = merge_tensor("w", base, [one], [1.0], [0.3], rng, method=chosen, settings=settings)
    again = merge_tensor("w", base, [one], [1.0], [0.3], rng, method=chosen, settings=settings)
    other = merge_tensor(
        "w", base, [one], [1.0], [0.3], lambda s, p: numpy_generator("other", s, p), method=chosen, settings=settings
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # five standard deviations of a mean of 200,000 draws
    assert abs(float(first.mean()) - 0.3) < 5 * (0.3 * 0.7 / 200_000) ** 0.5


def test_a_cut_keeps_exactly_k_and_ties_by_position() -> None:
    values = torch.tensor([2.0, 1.0, 2.0, 0.0, 2.0, 3.0])
    for k in range(7):
        for is_sorted in (False, True):
            row = np.sort(values.numpy()) if is_sorted else values.numpy().copy()
            kept = Selector(cut_of(row, k, is_sorted=is_sorted)).keep(values)
            assert kept.nonzero().flatten().tolist() == sorted([5, 0, 2, 4, 1, 3][:k])


def test_a_cached_threshold_is_not_computed_again() -> None:
    calls = []

    def magnitudes() -> np.ndarray:
        calls.append(1)
        return np.array([3.0, 1.0, 2.0])

    for cache, expected in ((CutCache(), 1), (CutCache(sorted_elements=0), 2)):
        calls.clear()
        for k in (1, 2, 1, 2):
            assert cache.cut("model", "w", k, magnitudes).level == [3.0, 2.0][k - 1]
        assert len(calls) == expected


@pytest.mark.parametrize(
    ("name", "changes", "parts"),
    [
        ("ties", {"base": None}, ["ties needs a base model", "base_model"]),
        ("ties", {"densities": [0.0, 0.5]}, ["density is 0", "(0, 1]"]),
        ("ties", {"densities": [2.0, 0.5]}, ["density is 2", "(0, 1]"]),
        ("ties", {"densities": [float("nan"), 0.5]}, ["density is nan"]),
        ("slerp", {"tensors": 3}, ["slerp got 3 models", "2 to 2"]),
        ("linear", {"weights": [1.0, -1.0]}, ["sum to 0"]),
        ("linear", {"weights": [1.0, float("nan")]}, ["must be finite"]),
        ("linear", {"weights": [1.0]}, ["2 models, but 1 weights"]),
        ("linear", {"shape": (3,)}, ["[4]", "[3]", "must be equal"]),
        ("ties", {"value": float("nan")}, ["'w' of source 2", "NaN"]),
        ("linear", {"value": float("inf")}, ["not finite"]),
    ],
)
def test_a_wrong_merge_says_what_is_wrong(name: str, changes: dict[str, object], parts: list[str]) -> None:
    chosen = method(name)
    count = int(changes.get("tensors", 2))  # type: ignore[call-overload]
    tensors = [torch.arange(4.0) + i for i in range(count)]
    if "shape" in changes:
        tensors[1] = torch.zeros(3)
    if "value" in changes:
        tensors[1][2] = changes["value"]  # type: ignore[assignment]
    weights = changes.get("weights", [0.5] * count)
    densities = changes.get("densities", [0.5] * count)
    base = changes.get("base", torch.zeros(4))
    with pytest.raises(MergeError) as caught:
        merge_tensor("w", base, tensors, weights, densities, rng, method=chosen, settings=settings_of(chosen))  # type: ignore[arg-type]
    for part in parts:
        assert part in str(caught.value)


def test_an_unknown_method_gets_the_near_matches() -> None:
    with pytest.raises(MergeError, match=r"unknown merge_method 'tie'; did you mean .*'ties'"):
        method("tie")
    with pytest.raises(MergeError, match="rescale is 'l2'; allowed: none, l1, density"):
        MergeSettings(rescale="l2")  # type: ignore[arg-type]

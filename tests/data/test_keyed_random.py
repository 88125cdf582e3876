"""Keys to generators: distinct, stable and apart from global state."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.keyed_random import numpy_generator, seed_of, torch_generator

KEYS = st.lists(st.text(max_size=5) | st.integers(-(2**70), 2**70), min_size=1, max_size=4)


def test_a_seed_never_moves() -> None:
    """Stored results depend on it: sha256 of '["batch",0,7]', first 63 bits."""
    assert seed_of("batch", 0, 7) == 0x1B54C45F7ECF9F76


@given(KEYS, KEYS)
def test_different_keys_have_different_seeds(one: list[str | int], other: list[str | int]) -> None:
    assert (seed_of(*one) == seed_of(*other)) == (one == other)
    assert 0 <= seed_of(*one) < 2**63


def test_text_and_number_are_different_keys() -> None:
    assert (
        len({seed_of(1), seed_of("1"), seed_of("1", ""), seed_of("", "1"), seed_of("a", "bc"), seed_of("ab", "c")}) == 6
    )


def test_numpy_integers_count_as_integers() -> None:
    assert seed_of("step", np.int64(3)) == seed_of("step", 3)


@pytest.mark.parametrize("part", [True, 1.5, None, b"x", np.bool_(True)])
def test_other_parts_are_refused(part: object) -> None:
    with pytest.raises(TypeError, match="strings and integers"):
        seed_of("step", part)  # type: ignore[arg-type]


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one part"):
        seed_of()


def test_generators_repeat_and_differ_by_key() -> None:
    assert numpy_generator("a", 1).random(4).tolist() == numpy_generator("a", 1).random(4).tolist()
    assert numpy_generator("a", 1).random(4).tolist() != numpy_generator("a", 2).random(4).tolist()
    first, again, other = (torch.rand(4, generator=torch_generator("a", n)) for n in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_global_state_is_left_alone() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index]
    numpy_generator("x").random(3)
    torch.rand(3, generator=torch_generator("x"))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index]
    assert before == after


def test_importing_the_package_prints_nothing_and_leaves_torch_out() -> None:
    code = "import sys, data.corpus, data.batches, data.keyed_random, data.stories; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False\n", "")

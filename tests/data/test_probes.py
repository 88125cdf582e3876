"""The six probes: every answer asked for is determined, batches are pure functions, names are helpful."""

from __future__ import annotations

import pytest

from data.probes import ASK, BLANK, IGNORED, UnknownProbeError, probe, probes

NAMES = ("in_context_recall", "fuzzy_recall", "noisy_recall", "selective_copy", "compression", "memorisation")


def test_there_are_six() -> None:
    assert tuple(probes()) == NAMES
    assert all(0 < task.chance < 0.1 and task.skill for task in probes().values())


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_a_pure_function_of_seed_and_step(name: str) -> None:
    task = probe(name)
    x, y = task.batch(batch_size=5, seed=3, step=7)
    again_x, again_y = task.batch(batch_size=5, seed=3, step=7)
    assert x.equal(again_x)
    assert y.equal(again_y)
    assert not x.equal(task.batch(batch_size=5, seed=3, step=8)[0])
    assert not x.equal(task.batch(batch_size=5, seed=4, step=7)[0])
    assert not x.equal(task.batch(batch_size=5, seed=3, step=-7)[0])
    assert x.shape == (5, task.seq_len)
    assert y.shape == (5, task.seq_len - task.compresses)
    assert int(x.min()) >= 0
    assert int(x.max()) < task.vocab_size
    counted = y[y != IGNORED]
    assert counted.numel() > 0
    assert int(counted.min()) >= 0
    assert int(counted.max()) < task.vocab_size


@pytest.mark.parametrize("name", ["in_context_recall", "noisy_recall"])
def test_a_recalled_value_is_the_one_that_followed_its_key_before(name: str) -> None:
    task = probe(name)
    x, y = task.batch(batch_size=20, seed=1, step=0)
    asked = 0
    for row in range(20):
        seen: dict[int, int] = {}
        for t in range(task.seq_len):
            key = int(x[row, t])
            target = int(y[row, t])
            if target != IGNORED:
                asked += 1
                assert seen[key] == target
            if 4 <= key < 20 and t + 1 < task.seq_len:
                seen.setdefault(key, int(x[row, t + 1]))
    assert asked > 20 * 8
    noise = (x == 2) | (x == 3)
    assert bool(noise.any()) == (name == "noisy_recall")


def test_fuzzy_values_are_determined_by_an_earlier_occurrence_of_key_and_value() -> None:
    task = probe("fuzzy_recall")
    x, y = task.batch(batch_size=10, seed=1, step=0)
    longest = 0
    for row in range(10):
        tokens = x[row].tolist()
        for t in range(task.seq_len):
            if int(y[row, t]) == IGNORED:
                continue
            start = t
            while tokens[start] >= 20:  # back over the part of the value already given
                start -= 1
            while start > 0 and 4 <= tokens[start - 1] < 20:  # and over the key
                start -= 1
            longest = max(longest, t - start + 1)
            said = tokens[start : t + 1]
            before = [tokens[i : i + len(said) + 1] for i in range(start - len(said))]
            assert [*said, int(y[row, t])] in before
    assert longest >= 3


def test_selective_copy_asks_for_the_tokens_in_order() -> None:
    x, y = probe("selective_copy").batch(batch_size=6, seed=1, step=0)
    for row in range(6):
        shown = [int(token) for token in x[row] if int(token) not in (BLANK, ASK)]
        assert shown == [int(token) for token in y[row] if int(token) != IGNORED]
        assert len(shown) == 16


def test_compression_asks_for_the_whole_sequence() -> None:
    x, y = probe("compression").batch(batch_size=4, seed=1, step=0)
    assert x[:, :-1].equal(y)
    assert (x[:, -1] == ASK).all()


def test_facts_stay_over_steps_and_change_with_the_seed() -> None:
    task = probe("memorisation")

    def facts(seed: int) -> dict[int, int]:
        found: dict[int, int] = {}
        for step in range(40):
            x, y = task.batch(batch_size=8, seed=seed, step=step)
            for key, value in zip(x[:, 0::2].flatten().tolist(), y[:, 1::2].flatten().tolist(), strict=True):
                assert found.setdefault(key, value) == value
        return found

    assert len(facts(1)) == 64
    assert facts(1) != facts(2)


def test_an_unknown_probe_names_the_nearest() -> None:
    with pytest.raises(UnknownProbeError, match="did you mean 'fuzzy_recall'"):
        probe("fuzy_recall")
    with pytest.raises(ValueError, match="batch_size must be 1 or more"):
        probe("compression").batch(batch_size=0, seed=1, step=0)

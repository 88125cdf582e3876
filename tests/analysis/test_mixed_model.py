"""The mixed model against the closed form for balanced data, and where it has nothing to weigh."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.mixed_model import mixed_model

SIZES = ("d32", "d48", "d80")


def rows_of(seed, *, effect=-0.04, n_seeds=6, sizes=SIZES, bend=0.0, own_sd=0.01, noise=0.005, seed_sd=0.02):
    """Losses in which seeds, pairs and candidates' own seed effects all vary."""
    rng, rows = np.random.default_rng(seed), []
    for run_seed in range(n_seeds):
        shared = seed_sd * rng.standard_normal()
        own = {arm: own_sd * rng.standard_normal() for arm in ("softmax", "conv")}
        for k, size in enumerate(sizes):
            pair = 0.01 * rng.standard_normal()
            for arm in ("softmax", "conv"):
                gain = (effect + bend * k) if arm == "conv" else 0.0
                loss = 3.5 - 0.1 * k + shared + pair + own[arm] + gain + noise * rng.standard_normal()
                rows.append({"candidate": arm, "size": size, "seed": run_seed, "val_loss": loss})
    return rows


def differences(rows):
    """Candidate minus reference, shape (seeds, sizes)."""
    loss = {(row["candidate"], row["size"], row["seed"]): row["val_loss"] for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    return np.array([[loss["conv", size, seed] - loss["softmax", size, seed] for size in SIZES] for seed in seeds])


@pytest.mark.parametrize("seed", range(7))
def test_balanced_effect_and_standard_error_are_those_of_the_paired_t_test(seed):
    rows = rows_of(seed, own_sd=0.03, seed_sd=0.2)
    averaged = differences(rows).mean(axis=1)
    result = mixed_model(rows, reference="softmax")
    (effect,) = result.effects
    assert effect.candidate == "conv"
    assert effect.effect == pytest.approx(averaged.mean(), abs=1e-8)
    assert effect.standard_error == pytest.approx(averaged.std(ddof=1) / math.sqrt(6), rel=0.02)
    assert result.converged
    assert effect.low < effect.effect < effect.high


def test_an_effect_that_changes_with_size_shows_as_interaction():
    bent = mixed_model(rows_of(1, bend=0.03), reference="softmax").effects[0]
    straight = mixed_model(rows_of(1), reference="softmax").effects[0]
    assert bent.p_interaction < 1e-4 < straight.p_interaction


def test_several_candidates_and_missing_seeds_are_used_as_they_are():
    rows = rows_of(2)
    rows += [{**row, "candidate": "null"} for row in rows_of(3) if row["candidate"] == "softmax" and row["seed"] < 4]
    result = mixed_model(rows, reference="softmax")
    assert [effect.candidate for effect in result.effects] == ["conv", "null"]
    assert result.n_runs == 36 + 12
    assert result.effects[0].effect == pytest.approx(differences(rows).mean(), abs=0.01)


def test_one_size_has_no_interaction():
    result = mixed_model(rows_of(4, sizes=("d32",)), reference="softmax")
    assert result.effects[0].p_interaction is None
    assert result.effects[0].effect == pytest.approx(-0.04, abs=0.03)


def test_an_exact_null_and_a_constant_difference_are_named():
    reference = [row for row in rows_of(5) if row["candidate"] == "softmax"]
    same = reference + [{**row, "candidate": "conv"} for row in reference]
    null = mixed_model(same, reference="softmax").effects[0]
    assert (null.effect, null.p, null.spread, null.p_interaction) == (0.0, 1.0, "exact null", 1.0)
    shifted = reference + [{**row, "candidate": "conv", "val_loss": row["val_loss"] - 0.5} for row in reference]
    constant = mixed_model(shifted, reference="softmax").effects[0]
    assert (constant.p, constant.spread) == (0.0, "constant")
    assert constant.effect == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rows: [*rows, rows[0]], "given twice"),
        (lambda rows: [{**rows[0], "val_loss": None}, *rows[1:]], "val_loss None"),
        (lambda rows: [{**rows[0], "val_loss": math.nan}, *rows[1:]], "val_loss nan"),
        (lambda rows: [row for row in rows if row["candidate"] == "conv"], "no run of the reference 'softmax'"),
        (lambda rows: [row for row in rows if row["seed"] == 0], "two seeds are needed"),
        (
            lambda rows: [row for row in rows if (row["candidate"], row["size"]) != ("conv", "d48")],
            "'conv' has no run at size 'd48'",
        ),
    ],
)
def test_damaged_rows_are_errors(damage, message):
    with pytest.raises(ValueError, match=message):
        mixed_model(damage(rows_of(0)), reference="softmax")

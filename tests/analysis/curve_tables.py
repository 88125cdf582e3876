"""Made-up tables of learning curves with known answers, for tests only."""

from __future__ import annotations

import numpy as np

from analysis.learning_curves import CurveTable, SizeCurves


def made_up_table(
    n_candidates: int = 12, n_seeds: int = 4, *, key: int = 0, spread: float = 0.03, noise: float = 0.006
) -> CurveTable:
    """Candidates whose true effects are normal with SD `spread`, over three sizes; early losses mislead."""
    rng = np.random.default_rng(key)
    effects = np.concatenate([[0.0], rng.normal(0.01, spread, n_candidates)])
    sizes = {}
    for name, horizon, n_parameters, level in (
        ("d32", 800, 24_896, 3.5),
        ("d48", 400, 55_776, 3.6),
        ("d80", 400, 154_400, 3.5),
    ):
        steps = np.arange(100, horizon + 1, 100)
        done = steps / horizon
        early = np.concatenate([[0.0], rng.normal(0, 2 * spread, n_candidates)])
        mean = level + (1 - done) ** 2 + effects[:, None] * done + early[:, None] * (1 - done)  # (C, E)
        common = rng.normal(0, 3 * noise, (1, n_seeds, 1))
        own = rng.normal(0, noise, (n_candidates + 1, n_seeds, 1))
        sizes[name] = SizeCurves(
            steps=steps, tokens_per_step=512, n_parameters=n_parameters, losses=mean[:, None, :] + common + own
        )
    return CurveTable(
        candidates=("reference", *(f"c{index:02d}" for index in range(n_candidates))),
        seeds=tuple(range(100, 100 + n_seeds)),
        sizes=sizes,
        provenance={"made": "up"},
    )

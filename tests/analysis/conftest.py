"""Paired differences that the tests share: ordinary, tied, with zeros, skewed, tiny and large."""

from __future__ import annotations

import numpy as np
import pytest

DATA_SETS = {
    "convolution at demo scale": [-0.091, -0.078, -0.104, -0.087, -0.101, -0.083],
    "null": [0.012, -0.021, 0.004, 0.018, -0.009, -0.015, 0.007, 0.001],
    "two pairs": [-0.03, -0.01],
    "ties": [-0.02, -0.02, 0.02, -0.01, -0.01, 0.03, -0.04],
    "zeros": [0.0, -0.02, 0.01, 0.0, -0.03, -0.05],
    "skewed": np.round(np.random.default_rng(5).exponential(0.05, 12) - 0.02, 6).tolist(),
    "ten normal": np.round(np.random.default_rng(6).normal(-0.01, 0.02, 10), 6).tolist(),
    "large": [1e6, -2e6, 3e6, 2.5e6, 1.5e6],
}


@pytest.fixture(params=list(DATA_SETS))
def differences(request):
    """One of the shared data sets, shape (n,)."""
    return np.array(DATA_SETS[request.param])


@pytest.fixture(params=["two-sided", "less", "greater"])
def alternative(request):
    """Every alternative in turn."""
    return request.param

"""The tests of the project under one name.

All take paired differences, candidate minus reference, one per seed, negative is better, and return frozen
results. The functions live in files of one noun each; this is their public face.
"""

from __future__ import annotations

from analysis.differences import CONSTANT, EXACT_NULL, ORDINARY, paired_differences
from analysis.effect_sizes import (
    BootstrapInterval,
    ProbabilityBetter,
    StandardizedEffect,
    bootstrap_interval,
    d_z,
    probability_better,
)
from analysis.mixed_model import MixedEffect, MixedModel, mixed_model
from analysis.multiplicity import benjamini_hochberg, holm
from analysis.paired_tests import (
    EquivalenceTest,
    PairedTTest,
    SignTestResult,
    equivalence,
    paired_t,
    sign_flip,
    wilcoxon,
)
from analysis.power import least_detectable_effect, paired_power, pairs_needed
from analysis.sequential import SequentialTest, sequential_sign, sequential_t

__all__ = [
    "CONSTANT",
    "EXACT_NULL",
    "ORDINARY",
    "BootstrapInterval",
    "EquivalenceTest",
    "MixedEffect",
    "MixedModel",
    "PairedTTest",
    "ProbabilityBetter",
    "SequentialTest",
    "SignTestResult",
    "StandardizedEffect",
    "benjamini_hochberg",
    "bootstrap_interval",
    "d_z",
    "equivalence",
    "holm",
    "least_detectable_effect",
    "mixed_model",
    "paired_differences",
    "paired_power",
    "paired_t",
    "pairs_needed",
    "probability_better",
    "sequential_sign",
    "sequential_t",
    "sign_flip",
    "wilcoxon",
]

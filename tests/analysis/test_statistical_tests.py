"""The public face is complete, and importing it loads neither scipy nor statsmodels."""

from __future__ import annotations

import subprocess
import sys

import analysis.statistical_tests as face


def test_every_name_is_there_and_documented():
    for name in face.__all__:
        assert hasattr(face, name)
        value = getattr(face, name)
        if callable(value):
            assert value.__doc__, name


def test_importing_the_statistics_is_cheap():
    modules = "statistical_tests, scaling_laws, promotion, calibration"
    code = (
        f"from analysis import {modules}\nimport sys\n"
        "heavy = [m for m in ('scipy', 'statsmodels', 'pandas', 'torch', 'matplotlib') if m in sys.modules]\n"
        "print(','.join(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

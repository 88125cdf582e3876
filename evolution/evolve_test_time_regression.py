"""Evolve the test_time_regression framework with the settings of `config_test_time_regression.yaml`.

The same as `evoscale evolve test_time_regression --config evolution/config_test_time_regression.yaml`; any setting can
be given as `a.b=c` arguments.
"""

from __future__ import annotations

from evolution.script import run_script

if __name__ == "__main__":
    run_script("test_time_regression")

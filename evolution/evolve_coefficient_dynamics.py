"""Evolve the coefficient_dynamics framework with the settings of `config_coefficient_dynamics.yaml`.

The same as `evoscale evolve coefficient_dynamics --config evolution/config_coefficient_dynamics.yaml`; any setting can
be given as `a.b=c` arguments.
"""

from __future__ import annotations

from evolution.script import run_script

if __name__ == "__main__":
    run_script("coefficient_dynamics")

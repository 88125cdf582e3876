"""Evolve the matrix_mixer framework with the settings of `config_matrix_mixer.yaml`.

The same as `evoscale evolve matrix_mixer --config evolution/config_matrix_mixer.yaml`; any setting can
be given as `a.b=c` arguments.
"""

from __future__ import annotations

from evolution.script import run_script

if __name__ == "__main__":
    run_script("matrix_mixer")

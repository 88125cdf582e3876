"""A supervisor that measures toy runs through ledger and sandbox, as an evolution does, to be killed at any moment.

Run as `python toy_measurement.py FOLDER`; a worker calls `measure`. It says `ready`, then the key of every run it has
committed, then `done`.
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

N_RUNS = 120


def measure(arguments: dict[str, Any]) -> dict[str, Any]:
    """A completed outcome whose loss follows from the spec alone."""
    time.sleep(0.01)
    spec = arguments["spec"]
    loss = expected_loss(spec["candidate"], spec["seed"])
    return {
        "status": "completed",
        "val_loss": loss,
        "curve": [],
        "n_parameters": 1,
        "tokens": 1,
        "flops": 1,
        "cpu_seconds": 0.0,
        "seconds": 0.0,
        "peak_memory_bytes": 1,
    }


def expected_loss(candidate: str, seed: int) -> float:
    """Between 0 and 1, from the digest of what was asked for."""
    return int.from_bytes(hashlib.sha256(f"{candidate}{seed}".encode()).digest()[:4], "big") / 2**32


def main(folder: Path) -> None:
    """Measure all runs that the ledger in `folder` does not hold yet."""
    from evolution import measurement
    from evolution.config import LimitsSection
    from evolution.ledger import Ledger
    from evolution.sandbox import Sandbox
    from training.run_spec import RunSpec

    measurement.MEASURE_TARGET = "toy_measurement:measure"
    corpus: Any = SimpleNamespace(directory=folder / "corpus")
    specs = [
        RunSpec(
            candidate=f"candidate{index % 10}", framework="matrix_mixer", size="d16", d_model=16, n_layers=1, n_heads=1,
            vocab_size=8, seq_len=4, batch_size=1, steps=1, learning_rate=0.1, seed=index, purpose="search",
            eval_split="search_validation", eval_every=1, eval_tokens=4, corpus_hash="c0ffee", tokenizer_hash="7ea",
        )
        for index in range(N_RUNS)
    ]  # fmt: skip
    with Ledger.open(folder / "ledger.sqlite", create=True) as ledger, Sandbox(preload=("toy_measurement",)) as sandbox:
        sandbox.warm_up()
        runs = measurement.Measurement(
            ledger=ledger,
            sandbox=sandbox,
            corpus=corpus,
            directory=folder / "scratch",
            workers=2,
            limits=LimitsSection(run_seconds=60.0),
            reference="none",
            on_outcome=lambda spec, outcome, recorded: None if recorded else print(spec.key, flush=True),
        )
        print("ready", flush=True)
        runs.gather((spec, "") for spec in specs)
        runs.close()
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

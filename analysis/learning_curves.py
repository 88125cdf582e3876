"""A table of learning curves: validation loss at every evaluation of many candidates, sizes and seeds.

One gzipped CSV file: a first line `# {JSON}` with what the runs share, then one line an
evaluation. A table is complete or refused: every candidate has every size, seed and step
of the reference, so that whatever resamples it never fills a hole. Bytes depend on the
content alone, so that the same runs give the same file.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("candidate", "size", "seed", "step", "val_loss")


class CurveTableError(ValueError):
    """A table of curves cannot be used; the message names the cell and what is allowed."""


@dataclass(frozen=True, kw_only=True)
class SizeCurves:
    """All curves at one size.

    Attributes:
        steps: (E,) training steps at the evaluations, ascending; the last is the horizon.
        tokens_per_step: training tokens of one step.
        n_parameters: non-embedding parameters of the reference.
        losses: (C, S, E) validation loss in nats a token, by candidate, seed and evaluation.
    """

    steps: NDArray[np.int64]
    tokens_per_step: int
    n_parameters: int
    losses: NDArray[np.float64]

    @property
    def tokens(self) -> int:
        """Training tokens of one run to the horizon."""
        return int(self.steps[-1]) * self.tokens_per_step


@dataclass(frozen=True, kw_only=True)
class CurveTable:
    """Learning curves of C candidates at several sizes over S seeds, the reference first.

    Attributes:
        candidates: (C,) names; the first is the reference.
        seeds: (S,) seeds; the same for every candidate and size.
        sizes: size name to its curves, small to large.
        provenance: what the runs share, plain JSON: framework, ladder, corpus hash, identities ...

    Raises:
        CurveTableError: a shape that does not fit, a loss that is not finite, a name twice.
    """

    candidates: tuple[str, ...]
    seeds: tuple[int, ...]
    sizes: Mapping[str, SizeCurves]
    provenance: Mapping[str, object]

    def __post_init__(self) -> None:
        if len(set(self.candidates)) != len(self.candidates) or len(self.candidates) < 2:
            raise CurveTableError(f"candidates {list(self.candidates)}: at least two, each once, the reference first")
        for name, curves in self.sizes.items():
            expected = (len(self.candidates), len(self.seeds), len(curves.steps))
            if curves.losses.shape != expected:
                raise CurveTableError(f"size {name}: losses have shape {curves.losses.shape}; expected {expected}")
            bad = np.argwhere(~np.isfinite(curves.losses))
            if len(bad):
                candidate, seed, step = bad[0]
                raise CurveTableError(
                    f"size {name}: candidate {self.candidates[candidate]!r}, seed {self.seeds[seed]}, step "
                    f"{curves.steps[step]} has loss {curves.losses[candidate, seed, step]}; only finite losses count"
                )

    @property
    def reference(self) -> str:
        """The name all others are compared with."""
        return self.candidates[0]

    @property
    def full_tokens(self) -> int:
        """Training tokens of every candidate at every size and seed to the horizon."""
        return len(self.candidates) * len(self.seeds) * sum(curves.tokens for curves in self.sizes.values())

    def finals(self, size: str) -> NDArray[np.float64]:
        """(C, S) losses at the full horizon of one size."""
        return self.sizes[size].losses[:, :, -1]


def write_curves(table: CurveTable, path: Path) -> None:
    """Write a table whole or not at all; losses to 5 decimals, far below the noise of a seed.

    Raises:
        OSError: it cannot be written.
    """
    text = io.StringIO()
    head = {
        "provenance": dict(table.provenance),
        "candidates": list(table.candidates),
        "sizes": {
            name: {"tokens_per_step": curves.tokens_per_step, "n_parameters": curves.n_parameters}
            for name, curves in table.sizes.items()
        },
    }
    text.write(f"# {json.dumps(head, sort_keys=True, allow_nan=False)}\n")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for c, candidate in enumerate(table.candidates):
        for name, curves in table.sizes.items():
            for s, seed in enumerate(table.seeds):
                for e, step in enumerate(curves.steps):
                    rows.writerow((candidate, name, seed, int(step), f"{curves.losses[c, s, e]:.5f}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0))
    temporary.replace(path)


def read_curves(path: Path) -> CurveTable:
    """Read a table that `write_curves` wrote.

    Raises:
        CurveTableError: not such a file, a cell missing or twice, a loss that is not finite.
        OSError: it cannot be read.
    """
    try:
        text = gzip.decompress(path.read_bytes()).decode()
        first, _, body = text.partition("\n")
        head = json.loads(first.removeprefix("# "))
        names, size_heads, provenance = tuple(head["candidates"]), head["sizes"], head["provenance"]
    except (gzip.BadGzipFile, EOFError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise CurveTableError(f"{path}: no table of learning curves: {type(error).__name__}: {error}") from None
    cells: dict[tuple[str, str, int, int], float] = {}
    for line, row in enumerate(csv.DictReader(io.StringIO(body)), start=3):
        try:
            key = (str(row["candidate"]), str(row["size"]), int(row["seed"]), int(row["step"]))
            loss = float(row["val_loss"])
        except (KeyError, TypeError, ValueError) as error:
            raise CurveTableError(f"{path}, line {line}: {error!r}; expected {', '.join(COLUMNS)}") from None
        if key in cells:
            raise CurveTableError(f"{path}, line {line}: the cell {key} stands there twice")
        cells[key] = loss
    seeds = tuple(sorted({key[2] for key in cells}))
    sizes = {name: _curves_of(path, name, size_heads[name], names, seeds, cells) for name in size_heads}
    expected = sum(curves.losses.size for curves in sizes.values())
    if len(cells) != expected:
        raise CurveTableError(f"{path}: {len(cells)} evaluations; its candidates, sizes and seeds make {expected}")
    return CurveTable(candidates=names, seeds=seeds, sizes=sizes, provenance=provenance)


def _curves_of(
    path: Path,
    size: str,
    head: Mapping[str, int],
    names: tuple[str, ...],
    seeds: tuple[int, ...],
    cells: Mapping[tuple[str, str, int, int], float],
) -> SizeCurves:
    steps = sorted({key[3] for key in cells if key[1] == size})
    if not steps:
        raise CurveTableError(f"{path}: size {size} has no evaluation")
    losses = np.full((len(names), len(seeds), len(steps)), math.nan)
    for c, name in enumerate(names):
        for s, seed in enumerate(seeds):
            for e, step in enumerate(steps):
                loss = cells.get((name, size, seed, step))
                if loss is None:
                    raise CurveTableError(
                        f"{path}: candidate {name!r} has no loss at size {size}, seed {seed}, step {step}; "
                        "a table holds every candidate at every size, seed and step"
                    )
                losses[c, s, e] = loss
    return SizeCurves(
        steps=np.array(steps, dtype=np.int64),
        tokens_per_step=int(head["tokens_per_step"]),
        n_parameters=int(head["n_parameters"]),
        losses=losses,
    )

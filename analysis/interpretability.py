"""What a mixing layer looks at: entropy, effective context, decay with distance, from its influence maps.

A map says how much position i's output depends on position j's value, rows summing to one; for softmax
attention it is the attention matrix. Mechanisms that are no attention have one too, so that they can be
compared with it. Nothing here says that what is looked at is what helps; for that see the ablation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from analysis.differences import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FLOOR = 1e-12
"""Shares below this are rounding and left out of the fit of a decay."""


@dataclass(frozen=True, kw_only=True)
class HeadReading:
    """One head's map in numbers.

    Attributes:
        entropy: mean over the later half of the rows of -sum p ln p, nats; ln of the row's length is the most.
        effective_context: mean of exp(entropy), positions: as many equally weighted ones would have this entropy.
        mean_distance: mean distance looked back, positions.
        profile: (T,) mean share at each distance, over the later half of the rows where they reach so far.
        decay_rate: least-squares slope of -ln(profile) on distance, per position; 0 does not decay.
        half_life: ln 2 / decay_rate, positions; None where it does not decay.
    """

    entropy: float
    effective_context: float
    mean_distance: float
    profile: tuple[float, ...]
    decay_rate: float
    half_life: float | None


def read_head(influence: ArrayLike) -> HeadReading:
    """Read one head's map.

    Args:
        influence: shape (T, T), T at least 4, row i the output position, column j the value's; rows sum to one, nothing
            negative, nothing above the diagonal.

    Raises:
        ValueError: another shape, a value that is not finite or negative, a row that does not sum to one or sees later
            positions.
    """
    table = np.array(influence, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or table.shape[0] < 4:
        raise ValueError(f"an influence map has shape (T, T) with T at least 4; got {table.shape}")
    if not np.isfinite(table).all() or (table < 0).any():
        raise ValueError("an influence map is finite and not negative")
    if np.abs(np.triu(table, 1)).max() > 1e-6:
        raise ValueError("an influence map has nothing above its diagonal; this one sees later positions")
    if np.abs(table.sum(axis=1) - 1).max() > 1e-6:
        raise ValueError(f"rows of an influence map sum to one; got sums from {table.sum(axis=1).min():.4g} on")
    length = table.shape[0]
    rows = table[length // 2 :]  # early rows cannot look far, whatever the head does
    logs = np.log(np.where(rows > 0, rows, 1.0))
    entropies = -(rows * logs).sum(axis=1)
    positions = np.arange(length)
    distances = positions[length // 2 :, None] - positions
    profile = np.array(
        [table.diagonal(-distance)[max(0, length // 2 - distance) :].mean() for distance in range(length)]
    )
    rate = _decay_rate(profile[: length // 2])
    return HeadReading(
        entropy=float(entropies.mean()),
        effective_context=float(np.exp(entropies).mean()),
        mean_distance=float((rows * distances).sum(axis=1).mean()),
        profile=tuple(float(share) for share in profile),
        decay_rate=rate,
        half_life=math.log(2) / rate if rate > 1e-9 else None,
    )


def _decay_rate(profile: FloatArray) -> float:
    """Slope of -ln share on distance over the distances that have any share; 0.0 with fewer than two of them."""
    seen = np.flatnonzero(profile > _FLOOR)
    if seen.size < 2:
        return 0.0
    x, y = seen - seen.mean(), -np.log(profile[seen])
    return float((x * (y - y.mean())).sum() / (x**2).sum())


def decay_spectrum(maps: ArrayLike) -> FloatArray:
    """Decay rates of all heads, slowest first, shape (heads,); `maps` has shape (heads, T, T).

    Raises:
        ValueError: as `read_head`.
    """
    return np.sort([read_head(head).decay_rate for head in np.asarray(maps, dtype=np.float64)])


def map_figure(arms: dict[str, ArrayLike]) -> Figure:
    """Influence maps of several arms, one row an arm, one column a head of shape (heads, T, T); dark is more.

    Raises:
        ValueError: no arm.
    """
    if not arms:
        raise ValueError("there is no arm to draw")
    from matplotlib.figure import Figure

    tables = {name: np.asarray(maps, dtype=np.float64) for name, maps in arms.items()}
    columns = max(len(maps) for maps in tables.values())
    figure = Figure(figsize=(1.8 * columns, 2.1 * len(tables)), layout="constrained")
    axes = figure.subplots(len(tables), columns, squeeze=False)
    for row, (name, maps) in zip(axes, tables.items(), strict=True):
        for column, axis in enumerate(row):
            axis.set_axis_off()
            if column < len(maps):
                # the square root shows small shares that a linear scale hides
                axis.imshow(np.sqrt(maps[column]), cmap="Greys", vmin=0, vmax=1)
                axis.set_title(f"{name}, head {column}", fontsize=7, parse_math=False)
    return figure
